"""When the items of a catalog can be had, and which of them cannot at a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.columns.arrays import Ints
from recsys.data.tables import WINDOWS

if TYPE_CHECKING:  # the data command does without
    import torch
    from torch import Tensor

_EVER = np.iinfo(np.int64)


class AvailabilityWindows:
    """Items with a bound, sorted by it, so that those that are closed at a moment are two slices.

    What has not opened yet is the end of one order, what has closed for good the beginning of the
    other; an item without a bound stands in neither and costs nothing.

    Args:
        opens: (I,) first moment of each item, ms since 1970 UTC; the least int64 for no bound.
        closes: (I,) moment from which each is gone; the greatest int64 for no bound.
        time: (N,) moments of the events that cases are numbers of, or None where none is asked.

    Attributes:
        bounded: How many items have a bound.
    """

    def __init__(self, opens: Ints, closes: Ints, time: Ints | None = None) -> None:
        self.opens, self.closes, self.time = opens, closes, time
        late, early = opens > _EVER.min, closes < _EVER.max
        self.bounded = int((late | early).sum())
        self._opening = _sort_bounds(opens, late)
        self._closing = _sort_bounds(closes, early)
        self._rows: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def from_items(items: pl.DataFrame, time: Ints | None = None) -> AvailabilityWindows | None:
        """The windows of a checked table of items; None where no item has a bound.

        Args:
            items: As `Tables.items`.
            time: (N,) moments of the events, or None.
        """
        none = (_EVER.min, _EVER.max)
        bounds = [
            items[name].fill_null(without).to_numpy().astype(np.int64)
            if name in items.columns
            else np.full(items.height, without, dtype=np.int64)
            for name, without in zip(WINDOWS, none, strict=True)
        ]
        found = AvailabilityWindows(bounds[0], bounds[1], time)
        return found if found.bounded else None

    def list_unavailable(self, moment: int) -> Ints:
        """(S,) catalog rows that cannot be had at a moment (ms since 1970 UTC), each once."""
        begin, end = self._find_cuts(np.array([moment]))
        return np.concatenate([self._opening[1][begin[0] :], self._closing[1][: end[0]]])

    def make_mask(self, case: Ints, device: torch.device) -> Tensor:
        """(Q, I) bool: what cannot be had at the time of each case (Q,); -1, a filler, as any.

        Only what is closed is written, a row after the other, as pairs of row and column would
        take 16 bytes each. Callers ask for as many cases as they hold scores of.
        """
        import torch

        from recsys.types import upload

        moments = self._get_times(np.maximum(case, 0))
        out = torch.zeros(len(case), len(self.opens), dtype=torch.bool, device=device)
        if self._rows is None or self._rows[0].device != device:
            pair = (self._opening[1], self._closing[1])
            opened, closed = (upload(torch.from_numpy(rows), device) for rows in pair)
            self._rows = (opened, closed)
        opening, closing = self._rows
        begins, ends = self._find_cuts(moments)
        for row, begin, end in zip(out, begins.tolist(), ends.tolist(), strict=True):
            row.index_fill_(0, opening[begin:], True)
            row.index_fill_(0, closing[:end], True)
        return out

    def is_unavailable(self, case: Ints, item: Ints) -> npt.NDArray[np.bool_]:
        """Whether items cannot be had at the time of their case, broadcast: (Q,), or (Q, n)."""
        moments = self._get_times(case)
        out: npt.NDArray[np.bool_] = (moments < self.opens[item]) | (moments >= self.closes[item])
        return out

    def list_unavailable_in(self, case: int) -> Ints:
        """(S,) catalog rows that cannot be had at the time of a case."""
        return self.list_unavailable(int(self._get_times(np.array([case]))[0]))

    def _get_times(self, case: Ints) -> Ints:
        if self.time is None:
            raise RuntimeError("windows without the times of events were asked about a case")
        moments: Ints = self.time[case]
        return moments

    def _find_cuts(self, moments: Ints) -> tuple[Ints, Ints]:
        """Where the items begin that open later, and end that have closed, each (Q,)."""
        # Windows are half-open, [opens, closes): an equal bound is open already, or gone.
        begin = np.searchsorted(self._opening[0], moments, side="right")
        end = np.searchsorted(self._closing[0], moments, side="right")
        return begin, end


def _sort_bounds(bounds: Ints, has: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Bounds in order, and the catalog row of each, of the items that have one."""
    rows = np.flatnonzero(has)
    rows = rows[np.argsort(bounds[rows], kind="stable")]
    return bounds[rows], rows
