"""Queries and items as prompts of a language model."""
