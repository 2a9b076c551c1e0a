"""Vectors of items and of queries for architectures that make none themselves."""
