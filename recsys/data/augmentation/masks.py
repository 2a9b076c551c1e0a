"""Masked copies of the histories of cases, for scores that are averaged over them.

After Dang et al., Data Augmentation as Free Lunch: Exploring the Test-Time Augmentation for
Sequential Recommendation (SIGIR 2025), where masking items is one of several augmentations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from recsys.data.augmentation.draws import draw_uniform
from recsys.data.augmentation.histories import Windows
from recsys.data.columns.arrays import Ints
from recsys.types import Batch, upload


class HistoryMasks:
    """Copies of a batch, in each of which every history lacks some of its items.

    What is masked depends on the seed, the number of the copy and the history alone: a history is
    read the same way in validation, test and recommendation, whatever batch it comes in.

    Args:
        seed: Of the run.
        copies: How many.
        share: Of the items of a history that are left out; at least one stays.
    """

    def __init__(self, seed: int, copies: int, share: float) -> None:
        self.seed, self.copies, self.share = seed, copies, share

    def iter_copies(self, batch: Batch) -> Iterator[Batch]:
        """The batch as it is, and then its masked copies."""
        yield batch
        host = batch.at_host
        history, query = host.history.numpy(), host.query.numpy()
        items = np.append(host.plan.rows.numpy(), -1)[history]
        names = _hash_histories(items)
        for copy in range(self.copies):
            at = Windows(history, np.arange(len(history)), query[:, 0], query[:, 1])
            place = np.arange(history.shape[1])
            at.mask(draw_uniform(self.seed, copy, names[:, None], place[None, :]), self.share)
            masked = torch.from_numpy(np.ascontiguousarray(at.items))
            seen = torch.from_numpy(np.stack([at.row, at.prefix], axis=1))
            changed = dataclasses.replace(host, history=masked, query=seen)
            device = batch.users.device
            yield (
                changed
                if device.type == "cpu"
                else dataclasses.replace(
                    batch, history=upload(masked, device), query=upload(seen, device), host=changed
                )
            )


def _hash_histories(items: Ints) -> Ints:
    """(B,) a number for each history (B, H) that its items and their order decide.

    Padding at the end has no part in it.
    """
    out = np.zeros(len(items), dtype=np.int64)
    with np.errstate(over="ignore"):
        for column in items.T:  # a polynomial that wraps
            out = np.where(column >= 0, out * np.int64(1_000_003) + column + 1, out)
    return out
