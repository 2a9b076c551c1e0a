"""How an ensemble asks its members, and what it makes of their scores."""
