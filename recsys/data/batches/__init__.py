"""From a split to batches of indices, planned on the host."""
