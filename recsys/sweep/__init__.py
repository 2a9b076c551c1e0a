"""Sweeps: Optuna studies whose trials are runs."""
