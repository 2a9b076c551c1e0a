"""One file an objective: the loss of a step."""
