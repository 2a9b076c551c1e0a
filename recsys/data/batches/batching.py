"""Which examples share a step: the global batches of every epoch, the same on every rank.

Batches are consecutive slices of an epoch's order, of so many examples or of so many tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Protocol

import numpy as np

from recsys.data.batches.examples import Ints

Order = Callable[[int], Ints]
Cut = Callable[[int, Ints], Ints]

_WINDOW = 64  # examples that are tried first for a batch; it doubles until one does not fit


class BatchPlan(abc.ABC):
    """The global batches of every epoch.

    Args:
        order: What an epoch trains on, shuffled.
    """

    def __init__(self, order: Order) -> None:
        self.order = order

    @abc.abstractmethod
    def count_batches(self, epoch: int) -> int:
        """Number of batches of an epoch."""

    @abc.abstractmethod
    def make_batches(self, epoch: int) -> list[Ints]:
        """The batches of an epoch, each at least one example."""

    @abc.abstractmethod
    def count_earlier_batches(self, epoch: int) -> int:
        """Number of batches of all epochs before this one."""

    @abc.abstractmethod
    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training; the last one of an epoch may hold fewer batches.

        Args:
            epochs: How many.
            accumulate: Batches of a step.
            most: It stops after so many steps; negative: it does not.
        """


class PlannedBatches(Protocol):
    """Data whose global batches are planned ahead."""

    @property
    def plan(self) -> BatchPlan:
        """The global batches of every epoch."""

    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training, as `BatchPlan.count_steps`."""


class FixedSizePlan(BatchPlan):
    """So many examples a batch; every epoch has the same number of batches.

    Args:
        order: What an epoch trains on, shuffled.
        count: How many examples an epoch has.
        size: Examples of a batch; the last one may have fewer.
    """

    def __init__(self, order: Order, count: int, size: int) -> None:
        super().__init__(order)
        self.count, self.size = count, size

    def count_batches(self, epoch: int) -> int:
        """Number of batches of an epoch; nothing is shuffled for it."""
        return -(-self.count // self.size)

    def make_batches(self, epoch: int) -> list[Ints]:
        """The batches of an epoch."""
        order = self.order(epoch)
        return [order[i : i + self.size] for i in range(0, len(order), self.size)]

    def count_earlier_batches(self, epoch: int) -> int:
        """Number of batches of all epochs before this one."""
        return epoch * self.count_batches(0)

    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training."""
        steps = -(-self.count_batches(0) // accumulate) * epochs
        return steps if most < 0 else min(steps, most)


class TokenBudgetPlan(BatchPlan):
    """So many unique tokens a batch; how many batches an epoch has depends on its order.

    Args:
        order: What an epoch trains on, shuffled.
        cut: Ends of the batches of an epoch, by its number and its order.
    """

    def __init__(self, order: Order, cut: Cut) -> None:
        super().__init__(order)
        self.cut = cut
        self._ends: dict[int, Ints] = {}

    def _cut_epoch(self, epoch: int) -> Ints:
        if epoch not in self._ends:
            self._ends[epoch] = self.cut(epoch, self.order(epoch))
        return self._ends[epoch]

    def count_batches(self, epoch: int) -> int:
        """Number of batches of an epoch."""
        return len(self._cut_epoch(epoch))

    def make_batches(self, epoch: int) -> list[Ints]:
        """The batches of an epoch."""
        return (
            np.split(self.order(epoch), self._cut_epoch(epoch)[:-1])
            if self.count_batches(epoch)
            else []
        )

    def count_earlier_batches(self, epoch: int) -> int:
        """Number of batches of all epochs before this one."""
        return sum(self.count_batches(e) for e in range(epoch))

    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training: the sum over its epochs, each of which is cut for it."""
        steps = 0
        for epoch in range(epochs):
            if 0 <= most <= steps:
                return most
            steps += -(-self.count_batches(epoch) // accumulate)
        return steps if most < 0 else min(steps, most)


def compute_token_ends(items: Ints, counts: Ints, costs: Ints, extra: Ints, budget: int) -> Ints:
    """Ends of consecutive slices whose unique items cost no more than a budget.

    A slice is closed when the next example would pass the budget; one that alone passes it makes
    a slice of its own.

    Args:
        items: (sum of counts,) items of the examples, one example after the other.
        counts: (N,) how many each has.
        costs: (I,) cost of an item, counted once a slice.
        extra: (N,) further cost of each example.
        budget: Largest cost of a slice.

    Returns:
        (S,) one past the last example of each slice, increasing; the last is N.
    """
    offsets = np.concatenate([[0], np.cumsum(counts)])
    last = _find_previous(items)
    cost = costs[items]
    ends: list[int] = []
    # By windows: sums over all that is left, for each slice anew, would be quadratic in an epoch.
    begin, window = 0, _WINDOW
    while begin < len(counts):
        stop = min(len(counts), begin + window)
        first, end = offsets[begin], offsets[stop]
        # An item is new to the slice where it stood last before the slice began.
        fresh = np.where(last[first:end] < first, cost[first:end], 0)
        passed = np.concatenate([[0], np.cumsum(fresh)])[offsets[begin + 1 : stop + 1] - first]
        total = passed + np.cumsum(extra[begin:stop])
        fits = int(np.searchsorted(total, budget, side="right"))
        if fits == stop - begin and stop < len(counts):
            window *= 2
            continue
        begin += max(1, fits)
        ends.append(begin)
        window = max(_WINDOW, 2 * fits)
    return np.array(ends, dtype=np.int64)


def _find_previous(items: Ints) -> Ints:
    """(N,) place at which each item stood before, or -1."""
    order = np.argsort(items, kind="stable")
    out = np.full(len(items), -1, dtype=np.int64)
    again = items[order[1:]] == items[order[:-1]]
    out[order[1:][again]] = order[:-1][again]
    return out
