"""Ranking metrics: pure functions and their torchmetrics wrappers."""
