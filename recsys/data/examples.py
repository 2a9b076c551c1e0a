"""Training queries and evaluation cases as batches of indices.

Everything is drawn for all users at once from (seed, epoch), never by rank, so that N processes
see together what one would see alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.splits import Split
from recsys.types import Batch, ItemBatch

Ints = npt.NDArray[np.int64]
Queries = Literal["last", "random", "all"]
Sampling = Literal["uniform", "frequency"]

TRAIN, VAL, TEST = 0, 1, 2
"""Values of `Split.role`."""


@dataclass(frozen=True)
class Rows:
    """Rows of a batch: each a window of a user's positive events, with its queries.

    Attributes:
        user: (B,) user rows.
        start: (B,) first positive event of the history window.
        stop: (B,) one past its last.
        row: (Q,) which row a query belongs to.
        prefix: (Q,) how many events of the window the query sees.
        target: (Q,) catalog row of the target.
        weight: (Q,) observed weight of the target.
        case: (Q,) number of the case, or -1.
    """

    user: Ints
    start: Ints
    stop: Ints
    row: Ints
    prefix: Ints
    target: Ints
    weight: npt.NDArray[np.float32]
    case: Ints


class Examples:
    """Turns a split into training queries and cases.

    Args:
        split: The events, sorted by user and time.
        items: Number of items in the catalog.
        max_history: How many of the latest positive events a history keeps.
    """

    def __init__(self, split: Split, items: int, max_history: int) -> None:
        self.split, self.items, self.max_history = split, items, max_history
        users = len(split.offsets) - 1
        self.user_of: Ints = np.repeat(np.arange(users), np.diff(split.offsets))
        liked = split.label > 0
        self._event: Ints = np.flatnonzero(liked)
        self._item: Ints = split.item[liked].astype(np.int64)
        self._user: Ints = self.user_of[liked]
        # _first[u] is where user u's positive events begin.
        self._first: Ints = np.searchsorted(self._user, np.arange(users + 1))
        self._role = split.role[liked]

    def train_counts(self) -> Ints:
        """(I,) how often training shows each item as a positive."""
        return np.bincount(self._item[self._role == TRAIN], minlength=self.items)

    def train_pairs(self) -> tuple[Ints, Ints]:
        """Users and items of the positive training events, each (N,)."""
        keep = self._role == TRAIN
        return self._user[keep], self._item[keep]

    def history(self, user: int) -> Ints:
        """All positive events of a user as catalog rows, in time order."""
        items: Ints = self._item[self._first[user] : self._first[user + 1]]
        return items

    def cases(self, role: int) -> Ints:
        """Positive events that are held out under `role`, as positions among the positives."""
        at: Ints = np.flatnonzero(self._role == role)
        return at

    def case_rows(self, at: Ints) -> Rows:
        """One row and one query for each case; the case number is its position."""
        return self._single(at, case=at)

    def epoch(self, queries: Queries, per_user: int, seed: int, epoch: int) -> Ints:
        """What an epoch trains on: positions of targets, or users with `queries="all"`.

        Args:
            queries: The last training event of a user, `per_user` random ones, or all positions.
            per_user: How many random ones.
            seed: Of the run.
            epoch: Number of the epoch.

        Returns:
            Shuffled positions among the positives, or user rows.
        """
        rng = np.random.default_rng([seed, epoch, 0])
        at = np.flatnonzero(self._role == TRAIN)
        counts = np.bincount(self._user[at], minlength=len(self._first) - 1)
        able = np.flatnonzero(counts >= 2)
        if queries == "all":
            return rng.permutation(able)
        first = np.searchsorted(self._user[at], able)
        if queries == "last":
            return rng.permutation(at[first + counts[able] - 1])
        # A target needs at least one event before it.
        draw = rng.random((len(able), per_user))
        offset = 1 + (draw * (counts[able] - 1)[:, None]).astype(np.int64)
        return rng.permutation(at[(first[:, None] + offset).ravel()])

    def train_rows(self, queries: Queries, at: Ints) -> Rows:
        """The rows of a training batch.

        Args:
            queries: As in `epoch`.
            at: A slice of what `epoch` returned.
        """
        if queries != "all":
            return self._single(at, case=np.zeros_like(at))
        train = np.flatnonzero(self._role == TRAIN)
        start = train[np.searchsorted(self._user[train], at)]
        stop = train[np.searchsorted(self._user[train], at, side="right") - 1]
        start = np.maximum(start, stop - self.max_history)
        sizes = stop - start
        row = np.repeat(np.arange(len(at)), sizes)
        prefix = 1 + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        target = start[row] + prefix
        return Rows(
            user=at,
            start=start,
            stop=stop,
            row=row,
            prefix=prefix,
            target=self._item[target],
            weight=self.split.weight[self._event[target]],
            case=np.zeros_like(row),
        )

    def _single(self, at: Ints, case: Ints) -> Rows:
        user = self._user[at]
        start = np.maximum(self._first[user], at - self.max_history)
        return Rows(
            user=user,
            start=start,
            stop=at,
            row=np.arange(len(at)),
            prefix=at - start,
            target=self._item[at],
            weight=self.split.weight[self._event[at]],
            case=case,
        )

    def batch(self, rows: Rows, sizes: Ints, negatives: Ints | None = None) -> Batch:
        """Plans the unique items of a step and points everything into the plan.

        Args:
            rows: The rows and queries.
            sizes: (I,) raw token counts of the catalog.
            negatives: (Q, N) catalog rows to stand beside the target, or None.
        """
        lengths = rows.stop - rows.start
        width = max(1, int(lengths.max(initial=0)))
        place = np.arange(width)[None, :]
        inside = place < lengths[:, None]
        event = np.minimum(rows.start[:, None] + place, max(0, len(self._item) - 1))
        history = np.where(inside, self._item[event], -1)
        candidates = rows.target[:, None]
        if negatives is not None:
            candidates = np.concatenate([candidates, negatives], axis=1)
        every = np.concatenate([history.ravel(), candidates.ravel()])
        plan = np.unique(every[every >= 0])

        def locate(x: Ints) -> Tensor:
            return torch.from_numpy(np.where(x >= 0, np.searchsorted(plan, x), -1))

        labels = torch.zeros(candidates.shape)
        labels[:, 0] = 1
        weight = torch.zeros(candidates.shape)
        weight[:, 0] = torch.from_numpy(rows.weight)
        return Batch(
            plan=ItemBatch(torch.from_numpy(plan), tuple(sizes[plan].tolist())),
            users=torch.from_numpy(rows.user),
            history=locate(history),
            query=torch.from_numpy(np.stack([rows.row, rows.prefix], axis=1)),
            candidates=locate(candidates),
            labels=labels,
            weight=weight,
            case=torch.from_numpy(rows.case),
        )

    def serve(self, items: Ints) -> Batch:
        """One query that sees the last H of these catalog rows, in time order; no candidates."""
        had = items[-self.max_history :]
        plan = np.unique(had)
        places = torch.from_numpy(np.searchsorted(plan, had))[None, :]
        none = torch.zeros(1, 0)
        return Batch(
            plan=ItemBatch(torch.from_numpy(plan), ()),
            users=torch.zeros(1, dtype=torch.long),
            history=places,
            query=torch.tensor([[0, len(had)]]),
            candidates=none.long(),
            labels=none,
            weight=none,
            case=torch.tensor([-1]),
        )

    def negatives(self, rows: Rows, n: int, sampling: Sampling, seed: int, epoch: int) -> Ints:
        """(Q, n) items seen in training; -1 where the draw is the target.

        Drawn from (seed, epoch, user, event), so that it does not matter which rank draws.

        Args:
            rows: The queries.
            n: Draws of a query.
            sampling: Every item alike, or by how often training shows it.
            seed: Of the run.
            epoch: Number of the epoch.
        """
        items = self._item[self._role == TRAIN]
        pool = np.unique(items) if sampling == "uniform" else items
        out = np.empty((len(rows.row), n), dtype=np.int64)
        for q, (r, prefix) in enumerate(zip(rows.row, rows.prefix, strict=True)):
            key = [seed, epoch, int(rows.user[r]), int(rows.start[r] + prefix)]
            out[q] = pool[np.random.default_rng(key).integers(len(pool), size=n)]
        out[out == rows.target[:, None]] = -1
        return out
