"""One file an architecture: how a user and an item become a score."""
