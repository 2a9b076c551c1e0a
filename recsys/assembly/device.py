"""Where a run computes."""

from __future__ import annotations

import torch

from recsys.config.compose import RunConfig
from recsys.runtime.ranks import get_local_rank


def select_device(run: RunConfig) -> torch.device | None:
    """The GPU that this process trains on, or None."""
    if run.trainer.accelerator == "gpu" and torch.cuda.is_available():
        return torch.device("cuda", get_local_rank())
    return None
