"""Vectors of all items for an architecture that makes none itself: an encoder's or a run's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.stored_runs import assemble_run
from recsys.config.choices import import_choice
from recsys.config.compose import RunConfig
from recsys.errors import ConfigError
from recsys.recommender.base import Recommender
from recsys.runtime.store import Store


def make_zero_shot_run(run: RunConfig) -> RunConfig:
    """The run's data and encoder under two towers without heads, of which nothing trains.

    Users are texts where the run reads them, and then no item has a vector.
    """
    asks = run.architecture.reads_user_texts
    user = "text" if asks else "history"
    return replace(
        run,
        encoder=replace(run.encoder, cache=run.encoder.cache and not asks),
        architecture=import_choice("architecture", "two_tower")(heads=False, user=user),
        tuning=import_choice("tuning", "frozen")(),
        objective=import_choice("objective", "in_batch")(),
    )


def compute_item_vectors(recommender: Recommender, device: torch.device) -> Tensor:
    """(I, D) fp32 on the CPU, in evaluation mode.

    Args:
        recommender: With item vectors.
        device: Where to compute.

    Raises:
        ConfigError: It has none.
    """
    items = recommender.to(device).eval().index_catalog()
    return recommender.select_item_vectors(items).float().cpu().contiguous()


def load_item_vectors(
    stored: StoredRun, assemble: Callable[[RunConfig], Assembly], device: torch.device
) -> Tensor:
    """The item vectors of a finished run, computed now or read from the store.

    Args:
        stored: The run.
        assemble: Builds a configuration.
        device: Where to compute.

    Returns:
        (I, D) fp32, mapped from disk.

    Raises:
        ConfigError: The run has no vector for each item, or a file of it is missing.
    """
    of = stored.config.architecture
    if not (of.trains and of.reads_item_vectors and "table" in of.gives):
        raise ConfigError(
            f"architecture.vectors={stored.folder} has no vector for each item; give a run of two "
            "towers, under any tuning."
        )

    def write(folder: Path) -> None:
        vectors = compute_item_vectors(assemble_run(stored, assemble).recommender, device)
        np.save(folder / "vectors.npy", vectors.numpy())

    key = {"what": "item vectors of a run", "format": 1, **stored.key}
    folder = Store().get_or_build("run_vectors", key, write)
    return torch.from_numpy(np.load(folder / "vectors.npy", mmap_mode="c"))
