"""A run's folder: its state, its result and where it came from."""
