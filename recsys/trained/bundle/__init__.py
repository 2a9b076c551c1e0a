"""A run as a folder that serves without its training data; nothing in it is code."""
