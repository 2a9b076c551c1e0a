"""Runs side by side: which method, at what cost, and is the difference real."""
