"""Callbacks of training, each with one duty."""
