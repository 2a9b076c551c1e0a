"""Draws that are the same on every machine: negatives, and the order of what is equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.data.batches.rows import BatchRows
from recsys.data.columns.arrays import Ints
from recsys.data.splits.availability import AvailabilityWindows


class NegativeSampler(Protocol):
    """Draws the negatives of training queries."""

    def sample(self, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
        """(Q, n) catalog rows of negatives, -1 for none; never the target.

        They depend on the query, seed and epoch alone, so that it does not matter which rank draws.

        Args:
            rows: The queries, their targets in column 0 of the candidates.
            n: Negatives of a query.
            seed: Of the run.
            epoch: Number of the epoch.
        """
        ...


@dataclass(frozen=True)
class PoolSampler:
    """Draws from one pool for all queries, with replacement.

    Attributes:
        pool: (N,) catalog rows, all equally likely: an item that stands there twice is drawn twice
            as often.
        windows: When items can be had; None: always.
    """

    pool: Ints
    windows: AvailabilityWindows | None = None

    def sample(self, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
        """(Q, n) items of the pool; -1 where the draw is the target or could not be had then.

        Nothing is drawn again in place of those: how often an item is drawn would no longer be its
        share of the pool, which is what a correction for the sampling reckons with.
        """
        out = np.empty((len(rows.row), n), dtype=np.int64)
        for q in range(len(rows.row)):
            rng = np.random.default_rng(make_query_key(rows, q, seed, epoch))
            out[q] = self.pool[rng.integers(len(self.pool), size=n)]
        out[out == rows.candidates[:, :1]] = -1
        return mask_unavailable(out, rows, self.windows)


def make_query_key(rows: BatchRows, query: int, seed: int, epoch: int) -> list[int]:
    """What names a query in an epoch, for a random stream of its own.

    By user, place in the user's history and target: not by its place in the batch, which depends on
    the number of ranks.
    """
    row = rows.row[query]
    place = rows.start[row] + rows.prefix[query]
    return [seed, epoch, int(rows.user[row]), int(place), int(rows.candidates[query, 0])]


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
