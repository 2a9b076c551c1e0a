"""What baselines know of the past: training events as tensors, and histories as sparse rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.splits.methods import TRAIN, Split
from recsys.errors import ConfigError
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


def require_interactions(interactions: Interactions | None, name: str) -> Interactions:
    """The training events, for an architecture that cannot do without.

    Raises:
        ConfigError: There are none.
    """
    if interactions is None or not bool(interactions.chosen.any()):
        raise ConfigError(
            f"architecture {name} counts the positive events of training, and the split holds "
            "none; choose another split, or an architecture that reads texts."
        )
    return interactions


def gather_history_rows(batch: Batch, items: Tensor) -> Tensor:
    """What each query may see, as catalog rows in time order.

    Args:
        batch: The batch.
        items: (U,) catalog rows of its plan.

    Returns:
        (Q, H) int64, -1 for none, at the end.
    """
    row, prefix = batch.query.unbind(1)
    history = batch.history[row]
    place = torch.arange(history.shape[1], device=history.device)
    inside = (place < prefix[:, None]) & (history >= 0)
    if not len(items):
        return torch.full_like(history, -1)
    return torch.where(inside, items[history.clamp(min=0)], -1)


def make_history_matrix(rows: Tensor, items: int, decay: float, binary: bool) -> csr_matrix:
    """Histories as rows of a sparse matrix.

    Args:
        rows: (Q, H) catalog rows in time order, -1 at the end for none.
        items: I, items of the catalog.
        decay: The weight of an event is exp(-decay) to the power of its distance from the latest.
        binary: An item that stands several times in a history counts as its latest event, in
            place of the sum.

    Returns:
        (Q, I) float32.
    """
    from scipy.sparse import csr_matrix

    had = rows.cpu().numpy()
    query, place = np.nonzero(had >= 0)
    length = (had >= 0).sum(1)
    item = had[query, place]
    weight = np.exp(-decay * (length[query] - 1 - place)).astype(np.float32)
    if binary:
        # the last of equal keys, read from behind, is the latest event
        _, latest = np.unique((query * items + item)[::-1], return_index=True)
        kept = len(item) - 1 - latest
        query, item, weight = query[kept], item[kept], weight[kept]
    out = csr_matrix((weight, (query, item)), shape=(len(had), items))
    out.sort_indices()
    return out
