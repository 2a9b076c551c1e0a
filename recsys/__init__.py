"""Experiments with language models that recommend."""

__version__ = "0.1.0"
