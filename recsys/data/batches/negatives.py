"""Draws that are the same on every machine: negatives, and the order of what is equal."""

from __future__ import annotations

import numpy as np

from recsys.data.batches.rows import BatchRows
from recsys.data.columns.arrays import Ints
from recsys.data.splits.availability import AvailabilityWindows


def sample_from_pool(pool: Ints, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
    """(Q, n) items of a pool, all equally likely; -1 where the draw is the target.

    Drawn from (seed, epoch, user, place, target), so that it does not matter which rank draws.
    """
    out = np.empty((len(rows.row), n), dtype=np.int64)
    for q, (r, prefix) in enumerate(zip(rows.row, rows.prefix, strict=True)):
        key = [
            seed,
            epoch,
            int(rows.user[r]),
            int(rows.start[r] + prefix),
            int(rows.candidates[q, 0]),
        ]
        out[q] = pool[np.random.default_rng(key).integers(len(pool), size=n)]
    out[out == rows.candidates[:, :1]] = -1
    return out


def compute_tie_order(counts: Ints) -> Ints:
    """(I,) catalog rows in the order in which items with equal scores are taken.

    Those come first that training shows more often (I,); equals among them are in an order that is
    drawn once for all. By row it would be the order of a file, which is that of the oldest items,
    the first letters or the best sellers.
    """
    drawn = np.random.default_rng(4).permutation(len(counts))
    order: Ints = np.lexsort((drawn, -counts))
    return order


def mask_unavailable(items: Ints, rows: BatchRows, windows: AvailabilityWindows | None) -> Ints:
    """(Q, n) items, -1 in place of those that could not be had when their query was asked.

    What has not opened yet, or has closed, was not passed over: it says nothing of a user.
    """
    if windows is None:
        return items
    return np.where(windows.is_unavailable(rows.event[:, None], items), -1, items)
