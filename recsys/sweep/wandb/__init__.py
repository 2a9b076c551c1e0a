"""A sweep at Weights & Biases."""
