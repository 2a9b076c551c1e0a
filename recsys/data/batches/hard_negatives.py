"""Hard negatives: items that another method ranks high for a query, and that are not its target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.batches.examples import Examples, Queries, Sampling
from recsys.data.batches.negatives import mask_unavailable
from recsys.data.batches.rows import BatchRows
from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.data.splits.split import Split
from recsys.data.splits.targets import Flags, Targets


def count_hard_negatives(negatives: int, share: float) -> int:
    """How many of a query's negatives are hard, a half rounded up."""
    return int(negatives * share + 0.5)


class HardNegativeExamples(Examples):
    """Trains against hard negatives in part; the others are drawn as without them.

    Args:
        split: The events.
        items: Number of items in the catalog.
        max_history: How many of the latest positive events a history keeps.
        targets: Train on liked events, or on every event with its own label.
        train_users: Train on a seeded sample of so many users; None for all.
        seed: Of that sample.
        profile_events: First events of a user that are in the user's text, and so no targets.
        share: Of a query's negatives, how many are hard.
        worded: (N,) whether a text says something of each event's query where no history does.
    """

    def __init__(
        self,
        split: Split,
        items: int,
        max_history: int,
        targets: Targets = "liked",
        train_users: int | None = None,
        seed: int = 0,
        profile_events: int = 0,
        *,
        share: float,
        worded: Flags | None = None,
    ) -> None:
        super().__init__(
            split, items, max_history, targets, train_users, seed, profile_events, worded=worded
        )
        self.share = share
        self._at: Ints = np.empty(0, dtype=np.int64)
        self._hard: npt.NDArray[np.int32] | None = None

    def list_target_events(self, queries: Queries) -> Ints:
        """(N,) events, in order, that some epoch may ask about."""
        if queries != "last":
            return self._train
        last: Ints = np.append(np.diff(self._user[self._train]) > 0, True)
        return self._train[last]

    def list_excluded_items(self, at: Ints) -> tuple[Ints, Ints]:
        """What is no negative of some queries: their targets, and the user's training positives.

        That is what is left out of drawn negatives too. What is held out for validation and test
        plays no part, be it liked or not.

        Args:
            at: (Q,) event numbers.

        Returns:
            Place of the query and catalog row of each such item, each (S,); with repeats.
        """
        users, items = self._pairs
        owner = self._user[at]
        low = np.searchsorted(users, owner)
        query, place = expand_sizes(np.searchsorted(users, owner, side="right") - low)
        every = np.arange(len(at))
        return (
            np.concatenate([query, every]),
            np.concatenate([items[low[query] + place], self._item[at]]),
        )

    def set_hard_negatives(self, at: Ints, hard: npt.NDArray[np.int32]) -> None:
        """Takes what was mined.

        Args:
            at: (N,) event numbers, increasing.
            hard: (N, T) catalog rows of the hard items of each, -1 at the end for none.
        """
        self._at, self._hard = at, hard

    def sample_negatives(
        self, rows: BatchRows, n: int, sampling: Sampling, seed: int, epoch: int
    ) -> Ints:
        """(Q, n) as without hard ones, but that hard ones stand in the first places.

        They are drawn without replacement from (seed, epoch, user, place, target), so that it does
        not matter which rank draws. Where a query has too few, drawn ones keep their places.

        Args:
            rows: The queries.
            n: Negatives of a query.
            sampling: How those are drawn that are not hard.
            seed: Of the run.
            epoch: Number of the epoch.

        Raises:
            RuntimeError: Nothing was mined yet.
        """
        if self._hard is None:
            raise RuntimeError("hard negatives are asked for before they were mined")
        out = super().sample_negatives(rows, n, sampling, seed, epoch)
        count = count_hard_negatives(n, self.share)
        mined = self._hard[np.searchsorted(self._at, rows.event)].astype(np.int64)
        mined = mask_unavailable(mined, rows, self.split.windows)
        for q, (r, prefix) in enumerate(zip(rows.row, rows.prefix, strict=True)):
            target = int(rows.candidates[q, 0])
            # The last number tells this stream from that of the drawn ones.
            key = [seed, epoch, int(rows.user[r]), int(rows.start[r] + prefix), target, 1]
            pool = mined[q][mined[q] >= 0]
            hard = pool[np.random.default_rng(key).permutation(len(pool))[:count]]
            out[q, : len(hard)] = hard
        return out
