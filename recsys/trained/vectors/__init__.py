"""What a finished run makes of items, users and texts, and its score of a pair."""
