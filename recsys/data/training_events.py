"""What baselines know of the past: training events as tensors, and queries that ended in some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.batches.examples import Examples
from recsys.data.splits.split import TRAIN, Split
from recsys.types import Batch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = npt.NDArray[np.int64]

DAY = 86_400_000
"""Milliseconds."""


@dataclass(frozen=True)
class Interactions:
    """The positive events of training, sorted by user, then time; none that is held out.

    Attributes:
        users: (N,) int64 user rows.
        items: (N,) int64 catalog rows.
        times: (N,) int64 milliseconds, or None where the data has an order only.
        chosen: (N,) bool, whether the event's user trains: `data.train_users` leaves out others,
            whose events still say how popular an item is.
    """

    users: Tensor
    items: Tensor
    times: Tensor | None
    chosen: Tensor

    @classmethod
    def from_split(cls, split: Split, train_users: Ints) -> Interactions:
        """From a split.

        Args:
            split: All events with their roles.
            train_users: User rows that train, in any order, repeats allowed.
        """
        keep = np.flatnonzero((split.role == TRAIN) & (split.label > 0))
        users = split.compute_user_rows()[keep]
        trains = np.zeros(len(split.offsets) - 1, dtype=np.bool_)
        trains[train_users] = True
        return cls(
            users=torch.from_numpy(users),
            items=torch.from_numpy(split.item[keep].astype(np.int64)),
            times=None if split.time is None else torch.from_numpy(split.time[keep]),
            chosen=torch.from_numpy(trains[users]),
        )

    def make_matrix(self, items: int, binary: bool) -> csr_matrix:
        """(users, I) float32 of the users that train, without the rows of the others.

        Args:
            items: I, items of the catalog.
            binary: 1 where there is an event, in place of how many there are.
        """
        from scipy.sparse import csr_matrix

        chosen = self.chosen.numpy()
        _, users = np.unique(self.users.numpy()[chosen], return_inverse=True)
        one = np.ones(len(users), dtype=np.float32)
        shape = (int(users.max(initial=-1)) + 1, items)
        # the constructor adds up repeats
        out = csr_matrix((one, (users, self.items.numpy()[chosen])), shape=shape)
        if binary:
            out.data[:] = 1
        out.sort_indices()
        return out


class TrainingQueries:
    """The queries of all training targets that are liked; what was taken at once is one query.

    Targets of one moment, such as a basket or the films that one turn of a dialogue names, have the
    same history and text before them, and are the several items of one query.

    Args:
        examples: Queries and cases.

    Attributes:
        users: (N,) user row of each query.
        offsets: (N + 1,) first of each query's items, and the end.
        items: (sum of sizes,) catalog rows that the queries ended in.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        at = examples.list_target_events("all")
        at = at[examples.split.label[at] > 0]
        starts = examples.split.compute_history_starts()[at]
        # A basket may be interrupted by other events of its user.
        order = np.argsort(starts, kind="stable")
        _, first = np.unique(starts[order], return_index=True)
        self._at: Ints = at[order][first]
        self.users: Ints = examples.split.compute_user_rows()[self._at]
        self.items: Ints = examples.split.item[at[order]].astype(np.int64)
        self.offsets: Ints = np.append(first, len(at)).astype(np.int64)

    def __len__(self) -> int:
        return len(self._at)

    def make_matrix(self, items: int) -> csr_matrix:
        """(N, I) float32, how often each query ended in each of so many items."""
        from scipy.sparse import csr_matrix

        one = np.ones(len(self.items), dtype=np.float32)
        out = csr_matrix((one, self.items, self.offsets), shape=(len(self), items))
        out.sum_duplicates()
        return out

    def iter_batches(self, size: int) -> Iterator[Batch]:
        """The queries in order, so many at a time, without candidates that matter.

        Args:
            size: How many.
        """
        sizes = np.zeros(self._examples.items, dtype=np.int64)
        for start in range(0, len(self), size):
            rows = self._examples.make_case_rows(self._at[start : start + size])
            yield self._examples.make_batch(rows, sizes)


def get_query_users(batch: Batch) -> Tensor:
    """(Q,) user row of each query of a batch, on the host; -1 for someone unknown."""
    host = batch.at_host
    return host.users[host.query[:, 0]].to(torch.int64)
