"""The part of a data set that every room reads: events in order, histories and held-out cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.splits.availability import AvailabilityWindows

TRAIN, VAL, TEST = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """All events of a data set with their part in the experiment.

    Attributes:
        offsets: (users + 1,) int64, where each user's events start; users in table order.
        item: (N,) int32 catalog rows.
        time: (N,) int64 milliseconds, or None where the data has an order only.
        label: (N,) float32, 1 for a positive event, else 0.
        weight: (N,) float32.
        role: (N,) int8, 0 train, 1 validation, 2 test.
        name: The method with its settings, for results.
        notes: Sentences for the log.
        row: (N,) int64 row of each event in the interactions; None for a split made by hand.
        shown: (N,) int64 first event of the impression that an event belongs to, -1 for none; None
            where the data has no impressions.
        basket: (N,) int64 first event of the basket that an event belongs to, -1 for none; None
            where the data has no baskets (a column `basket`).
        moment: (N,) int64 first event of the moment that an event belongs to, such as a turn of a
            dialogue, -1 for none; None where the data has none (a column `moment`). None of its
            events is the past of another, as in a basket, but each is ranked beside the others.
        target: (N,) bool whether an event may be asked about; one that may not is in histories
            alone; None: every one may (no column `is_target`).
        windows: When items can be had, next to the times of the events; None where there are no
            times, or where every item can always be had.
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64] | None
    label: NDArray[np.float32]
    weight: NDArray[np.float32]
    role: NDArray[np.int8]
    name: str
    notes: tuple[str, ...] = ()
    row: NDArray[np.int64] | None = None
    shown: NDArray[np.int64] | None = None
    basket: NDArray[np.int64] | None = None
    moment: NDArray[np.int64] | None = None
    target: NDArray[np.bool_] | None = None
    windows: AvailabilityWindows | None = None

    def compute_user_rows(self) -> NDArray[np.int64]:
        """(N,) user row of each event."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def compute_history_starts(self) -> NDArray[np.int64]:
        """(N,) event before which the history of each event ends.

        It is the event itself; or the first of its impression, basket or moment, as all of that
        happened at once.
        """
        event = np.arange(len(self.item), dtype=np.int64)
        start = event
        for first in self._list_groups():
            if first is not None:
                start = np.minimum(start, np.where(first < 0, event, first))
        return start

    def list_cases(self, role: int) -> NDArray[np.int64]:
        """Event numbers of the targets of a role: its events with label 1, in event order.

        None is among them that may not be asked about.
        """
        return np.flatnonzero((self.role == role) & (self.label > 0) & self.is_target())

    def is_target(self) -> NDArray[np.bool_]:
        """(N,) whether each event may be asked about."""
        if self.target is None:
            return np.ones(len(self.item), dtype=np.bool_)
        return self.target

    def _list_groups(self) -> tuple[NDArray[np.int64] | None, ...]:
        """What may hold events together that happened at once."""
        return self.shown, self.basket, self.moment

    def slice_history(self, event: int) -> slice:
        """What `event` may see of the same user, oldest first, as a slice of the arrays."""
        user = int(np.searchsorted(self.offsets, event, side="right")) - 1
        start = event
        for first in self._list_groups():
            if first is not None and first[event] >= 0:
                start = min(start, int(first[event]))
        return slice(int(self.offsets[user]), start)
