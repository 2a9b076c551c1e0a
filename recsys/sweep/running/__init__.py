"""Trials as processes: driver, workers, storage."""
