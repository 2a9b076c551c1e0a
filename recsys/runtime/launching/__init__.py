"""Processes that srun or torchrun has started: who is who, where they meet, and their job."""
