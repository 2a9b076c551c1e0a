"""What a user liked before a case, whole and not cut as a batch's history is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.arrays import Ints, ragged
from recsys.data.splits import TRAIN, Split


class Past:
    """The positive events before each case.

    Args:
        split: The events, sorted by user and time.
    """

    def __init__(self, split: Split) -> None:
        user, liked = split.user(), split.label > 0
        self._item: Ints = split.item[liked].astype(np.int64)
        self._first: Ints = np.searchsorted(user[liked], user)
        self._stop: Ints = (np.cumsum(liked) - liked)[split.starts()]
        self._trains = np.zeros(len(split.offsets) - 1, dtype=np.bool_)
        self._trains[user[liked & (split.role == TRAIN)]] = True
        self._user = user

    def lengths(self, case: Ints) -> Ints:
        """(Q,) how many positive events lie before each case (Q,), an event number."""
        lengths: Ints = self._stop[case] - self._first[case]
        return lengths

    def items(self, case: Ints) -> tuple[Ints, Ints]:
        """Place of the case and catalog row of each of those events, each (sum of lengths,)."""
        owner, place = ragged(self.lengths(case))
        return owner, self._item[self._first[case][owner] + place]

    def cold(self, case: Ints) -> npt.NDArray[np.bool_]:
        """(Q,) whether the case's user has no positive event in training."""
        cold: npt.NDArray[np.bool_] = ~self._trains[self._user[case]]
        return cold
