"""What queries are compared by: words of texts, and the nearest of many queries."""
