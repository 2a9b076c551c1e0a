"""Items that stand near each other in a history: pairs of events, counted in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from recsys.layers.item_item import BLOCK, iter_slices, select_neighbours

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Gap = Literal["equal", "inverse"]

UNIT = 2.0**-24
"""Weights of pairs are multiples of it: their sums are exact in any order, so that what is equal
comes out equal."""


@dataclass(frozen=True)
class PairWeights:
    """Which pairs of a user's events count, and how much.

    Attributes:
        window: Steps that their events may be apart, at most.
        gap: What a pair weighs: 1, or 1 / steps.
        backward: What a pair weighs for the earlier item, as a share of what it weighs for the
            later one.
        binary: Of several pairs of a user with the same two items only the heaviest counts.
    """

    window: int
    gap: Gap
    backward: float
    binary: bool


def compute_windowed_neighbours(
    users: Ints,
    items: Ints,
    squares: Floats,
    weights: PairWeights,
    neighbours: int,
    shrink: float,
    block: int = BLOCK,
) -> csr_matrix:
    """The items after (or before) which each item comes most often, within some steps.

    With an endless window, equal gaps and as much weight backward as forward these are the
    neighbours of `compute_cosine_neighbours`.

    Args:
        users: (N,) users in ascending order.
        items: (N,) their items, each user's in time order.
        squares: (I,) squared length of each item's column, by which a sum of pairs is divided as
            by the norms of a cosine.
        weights: Of the pairs.
        neighbours: k, items kept of each item.
        shrink: Added to the product of both norms.
        block: Pairs held at a time; those of one item and its users, at least.

    Returns:
        (I, I) float32; row j holds those i of a history by which j is found, never itself.
    """
    from scipy.sparse import vstack

    events = _Events.make(users, items, len(squares), weights)
    parts = [
        select_neighbours(events.sum_pairs(part, block), part, squares, neighbours, shrink)
        for part in iter_slices(events.count_pairs_by_item(), block)
    ]
    out: csr_matrix = vstack(parts, format="csr", dtype=np.float32)
    return out


@dataclass(frozen=True)
class _Events:
    """Events by item, and where each stands in its user's history.

    Attributes:
        items: (N,) item of each event, by user and time.
        before: (N,) events of its user before it, within the window.
        after: (N,) events of its user after it, within the window.
        order: (N,) events by item; those of an item by user and time.
        starts: (I + 1,) first of each item's events in `order`.
        run: (N,) number of the item's and user's run of events in `order`.
        users: (N,) user of each event, ascending.
        repeats: (N,) whether the user has several events of the event's item.
        weights: Of pairs.
    """

    items: Ints
    before: Ints
    after: Ints
    order: Ints
    starts: Ints
    run: Ints
    users: Ints
    repeats: npt.NDArray[np.bool_]
    weights: PairWeights

    @classmethod
    def make(cls, users: Ints, items: Ints, size: int, weights: PairWeights) -> _Events:
        """Of events by user and time, and `size` items."""
        place, length = _count_places(users)
        order = np.argsort(items, kind="stable").astype(np.int64)
        fresh = np.ones(len(items), dtype=np.bool_)
        fresh[1:] = (np.diff(items[order]) != 0) | (np.diff(users[order]) != 0)
        run = np.cumsum(fresh) - 1
        repeats = np.empty(len(items), dtype=np.bool_)
        repeats[order] = np.bincount(run)[run] > 1
        return cls(
            items=items,
            before=np.minimum(place, weights.window),
            after=np.minimum(length - 1 - place, weights.window),
            order=order,
            starts=np.concatenate([[0], np.cumsum(np.bincount(items, minlength=size))]),
            run=run,
            users=users,
            repeats=repeats,
            weights=weights,
        )

    def count_pairs_by_item(self) -> Ints:
        """(I,) pairs in which each item is the one that is found."""
        pairs = np.concatenate([[0], np.cumsum((self.before + self.after)[self.order])])
        counts: Ints = np.diff(pairs[self.starts])
        return counts

    def sum_pairs(self, part: slice, block: int) -> csr_matrix:
        """(n, I) float64 sums of the pairs of some items with all, the items' own left out."""
        from scipy.sparse import csr_matrix

        first, stop = int(self.starts[part.start]), int(self.starts[part.stop])
        shape = (part.stop - part.start, len(self.starts) - 1)
        total = csr_matrix(shape, dtype=np.float64)
        for at in self._iter_runs(first, stop, block):
            event, other, weight = self._list_pairs(self.order[at])
            row = self.items[event] - part.start
            total = total + csr_matrix((weight, (row, self.items[other])), shape=shape)
        return total

    def _iter_runs(self, first: int, stop: int, block: int) -> Iterator[slice]:
        """Stretches of `order` whose pairs are at most `block`, or of one item and user."""
        if first == stop:
            return
        at = self.order[first:stop]
        run = self.run[first:stop] - self.run[first]
        ends = [first, *(first + np.cumsum(np.bincount(run))).tolist()]
        pairs = np.bincount(run, weights=self.before[at] + self.after[at])
        for runs in iter_slices(pairs, block):
            yield slice(ends[runs.start], ends[runs.stop])

    def _list_pairs(self, events: Ints) -> tuple[Ints, Ints, Floats]:
        """The events' pairs with others of their users: event, other one, weight, each (P,)."""
        chosen, others, weights = [], [], []
        sides = ((self.before, -1, 1.0), (self.after, 1, self.weights.backward))
        for reach, sign, share in sides:
            if not share:
                continue
            left, gap = events[reach[events] > 0], 1
            while len(left):
                chosen.append(left)
                others.append(left + sign * gap)
                each = share / gap if self.weights.gap == "inverse" else share
                weights.append(np.full(len(left), round(each / UNIT) * UNIT))
                gap += 1
                left = left[reach[left] >= gap]
        if not chosen:
            none = np.empty(0, dtype=np.int64)
            return none, none, np.empty(0)
        event, other, weight = (np.concatenate(x) for x in (chosen, others, weights))
        if self.weights.binary and self.repeats.any():
            kept = self._select_heaviest(event, other, weight)
            event, other, weight = event[kept], other[kept], weight[kept]
        return event, other, weight

    def _select_heaviest(self, event: Ints, other: Ints, weight: Floats) -> Ints:
        """Of the pairs of a user with the same two items, the heaviest one."""
        twice = self.repeats[event] | self.repeats[other]
        (at,) = np.nonzero(twice)
        keys = (-weight[at], self.items[other[at]], self.items[event[at]], self.users[event[at]])
        at = at[np.lexsort(keys)]
        fresh = np.ones(len(at), dtype=np.bool_)
        for key in (self.items[other], self.items[event], self.users[event]):
            fresh[1:] &= key[at[1:]] == key[at[:-1]]
        fresh[1:], fresh[:1] = ~fresh[1:], True
        kept: Ints = np.concatenate([np.flatnonzero(~twice), at[fresh]])
        return kept


def _count_places(users: Ints) -> tuple[Ints, Ints]:
    """(N,) place of each event in its user's history, and (N,) the history's length."""
    fresh = np.ones(len(users), dtype=np.bool_)
    fresh[1:] = users[1:] != users[:-1]
    first = np.flatnonzero(fresh)
    lengths = np.diff(np.append(first, len(users)))
    owner = np.cumsum(fresh) - 1
    return np.arange(len(users)) - first[owner], lengths[owner]
