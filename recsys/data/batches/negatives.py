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


class SimilarSampler:
    """Draws among the items that training shows about as often as the target, with replacement.

    How popular an item is then tells nothing of which one is the target, so that nothing is learned
    of it; what never was a positive is not pushed below what often was.

    Args:
        positives: (P,) catalog rows of the training positives.
        items: I, items of the catalog.
        windows: When items can be had; None: always.
    """

    NEAREST = 0.1
    """Share of the items, nearest to the target by count, whose counts are similar."""

    def __init__(
        self, positives: Ints, items: int, windows: AvailabilityWindows | None = None
    ) -> None:
        counts = np.bincount(positives, minlength=items)
        shown = np.flatnonzero(counts)
        self.windows = windows
        self._pool = shown[np.argsort(counts[shown], kind="stable")]
        ordered = counts[self._pool]
        last, reach = len(ordered) - 1, int(np.ceil(self.NEAREST * len(ordered) / 2))
        first, behind = (np.searchsorted(ordered, counts, side) for side in ("left", "right"))
        middle = (first + behind) // 2
        least = ordered[np.clip(middle - reach, 0, last)]
        most = ordered[np.clip(middle + reach, 0, last)]
        # Items of one count belong together: no order among them would mean anything.
        self._begin = np.searchsorted(ordered, least, "left")
        self._end = np.searchsorted(ordered, most, "right")

    def sample(self, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
        """(Q, n) as `PoolSampler.sample`, each query from the part of the pool near its target."""
        out = np.empty((len(rows.row), n), dtype=np.int64)
        for q, target in enumerate(rows.candidates[:, 0]):
            rng = np.random.default_rng(make_query_key(rows, q, seed, epoch))
            out[q] = self._pool[rng.integers(self._begin[target], self._end[target], size=n)]
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
