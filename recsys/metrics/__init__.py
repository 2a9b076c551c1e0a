"""Ranking metrics: pure functions, and their means over all cases and ranks."""
