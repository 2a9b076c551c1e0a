"""From files to batches of indices."""
