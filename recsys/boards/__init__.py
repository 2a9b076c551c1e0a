"""Workspaces and reports at Weights & Biases, as specifications that can be pushed later."""
