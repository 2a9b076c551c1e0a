"""What a user liked before a case, whole and not cut as a batch's history is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.data.splits.split import TRAIN, Split


class CaseHistories:
    """The positive events before each case.

    Args:
        split: The events, sorted by user and time.
    """

    def __init__(self, split: Split) -> None:
        liked = split.label > 0
        self._split, self._starts = split, split.compute_history_starts()
        self._item: Ints = split.item[liked].astype(np.int64)
        # (N + 1,) positive events before each event.
        self._rank: Ints = np.concatenate([[0], np.cumsum(liked)])
        trained = np.concatenate([[0], np.cumsum(liked & (split.role == TRAIN))])
        self._trains: npt.NDArray[np.bool_] = np.diff(trained[split.offsets]) > 0

    def _find_users(self, case: Ints) -> Ints:
        user: Ints = np.searchsorted(self._split.offsets, case, side="right") - 1
        return user

    def _find_first(self, case: Ints) -> Ints:
        """(Q,) place of the first positive event of each case's user, among the positive ones."""
        first: Ints = self._rank[self._split.offsets[self._find_users(case)]]
        return first

    def count_events(self, case: Ints) -> Ints:
        """(Q,) how many positive events lie before each case (Q,), an event number."""
        lengths: Ints = self._rank[self._starts[case]] - self._find_first(case)
        return lengths

    def list_items(self, case: Ints) -> tuple[Ints, Ints]:
        """Place of the case and catalog row of each of those events, each (sum of lengths,)."""
        owner, place = expand_sizes(self.count_events(case))
        return owner, self._item[self._find_first(case)[owner] + place]

    def is_cold(self, case: Ints) -> npt.NDArray[np.bool_]:
        """(Q,) whether the case's user has no positive event in training."""
        cold: npt.NDArray[np.bool_] = ~self._trains[self._find_users(case)]
        return cold
