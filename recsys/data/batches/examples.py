"""Training queries and evaluation cases as batches of indices.

Everything is drawn for all users at once from (seed, epoch), never by rank, so that N processes
see together what one would see alone.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.config.schema import Sampling
from recsys.data.batches.rows import BatchRows, CandidateLists
from recsys.data.columns.arrays import expand_sizes, sample
from recsys.data.splits.baskets import Baskets
from recsys.data.splits.split import Split
from recsys.data.splits.targets import Flags, Targets, select_targets
from recsys.types import Batch, ItemBatch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Queries = Literal["last", "random", "all"]

TRAIN, VAL, TEST = 0, 1, 2
"""Values of `Split.role`."""

NOTHING: Ints = np.empty((0, 2), dtype=np.int64)


class Examples:
    """Turns a split into training queries and cases.

    A history holds positive events only: what the user liked before the event, or impression.

    Args:
        split: The events, sorted by user and time.
        items: Number of items in the catalog.
        max_history: How many of the latest positive events a history keeps.
        targets: Train on liked events, or on every event with its own label.
        train_users: Train on a seeded sample of so many users; None for all.
        seed: Of that sample.
        profile_events: First events of a user that are in the user's text, and so no targets.
        worded: (N,) whether a text says something of each event's query where no history does;
            None where no query is a text.
        context: (N,) codes of contextual features at each event by name; None for none.
        dislikes: Whether batches say what a user did not like.
        repeated: (N,) events that are no targets of training, as the user had their items before;
            None: none.
        now: (U,) codes of context by name that a user has after all events; 0 for other names.

    Attributes:
        notes: What training leaves out, as sentences for the log.
        predictable: (N,) whether each event's query has a history or a text to be predicted from.
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
        worded: Flags | None = None,
        context: Mapping[str, Ints] | None = None,
        dislikes: bool = False,
        repeated: Flags | None = None,
        now: Mapping[str, Ints] | None = None,
    ) -> None:
        self._now: Mapping[str, Ints] = {} if now is None else now
        self._dislikes = dislikes
        self.split, self.items, self.max_history = split, items, max_history
        self.context: Mapping[str, Ints] = {} if context is None else context
        self._baskets = None if split.basket is None else Baskets(split)
        users = len(split.offsets) - 1
        self._user: Ints = np.repeat(np.arange(users), np.diff(split.offsets))
        self._item: Ints = split.item.astype(np.int64)
        liked = split.label > 0
        self._unliked: Ints = np.flatnonzero(~liked)
        # Events are numbered twice: among all, and among the positive ones.
        self._liked: Ints = np.flatnonzero(liked)
        self._start: Ints = split.compute_history_starts()
        self._before: Ints = (np.cumsum(liked) - liked)[self._start]
        # Of events up to here: a basket may go on after another one began.
        self._reach: Ints = np.maximum.accumulate(self._before)
        self._first: Ints = np.searchsorted(self._user[self._liked], np.arange(users + 1))
        self.predictable: Flags = self._before > self._first[self._user]
        if worded is not None:
            self.predictable |= worded
        able, self.notes = select_targets(
            split, self.predictable, targets, profile_events, repeated
        )
        self._repeated = repeated
        # An observed negative counts as weight 0, whatever its event weighs.
        self._weight: Floats = (split.weight * split.label).astype(np.float32)
        chosen: Ints | None = None
        if train_users is not None and train_users < users:
            every = np.random.default_rng([seed, 1]).permutation(np.unique(self._user[able]))
            chosen = every[:train_users]
            able &= np.isin(self._user, chosen)
        self._train: Ints = np.flatnonzero(able)
        own = (split.role == TRAIN) & liked
        if chosen is not None:
            own &= np.isin(self._user, chosen)
        self._pairs = self._user[own], self._item[own]
        shown = np.unique(self._pairs[1])
        self._pools = {"uniform": shown, "frequency": self._pairs[1], "similar": shown}

    def get_train_weights(self) -> Floats:
        """(N,) weights of all training targets; an observed negative weighs 0."""
        weights: Floats = self._weight[self._train]
        return weights

    def get_event_weights(self) -> Floats:
        """(N,) what the events of all training targets weigh, liked or not."""
        weights: Floats = self.split.weight[self._train]
        return weights

    @cached_property
    def importance(self) -> Floats | None:
        """(N,) what the queries of all events weigh in a loss, 1 on average over the targets.

        None where all targets weigh alike, so that a loss is what it is without weights.
        """
        own = self.get_event_weights()
        if not len(own) or own.min() == own.max():
            return None
        scaled: Floats = (self.split.weight / own.mean(dtype=np.float64)).astype(np.float32)
        return scaled

    def count_train_items(self) -> Ints:
        """(I,) how often the training part shows each item as a positive.

        Of all users, also those that `train_users` leaves out: what is cold, the baselines and the
        candidate lists belong to the data, and are the same for every run on it.
        """
        keep = (self.split.role == TRAIN) & (self.split.label > 0)
        return np.bincount(self._item[keep], minlength=self.items)

    def get_train_pairs(self) -> tuple[Ints, Ints]:
        """Users and items of the positive events of the users that train, each (N,)."""
        return self._pairs

    def list_history(self, user: int) -> Ints:
        """All positive events of a user as catalog rows, in time order."""
        return self._item[self._liked[self._first[user] : self._first[user + 1]]]

    def list_seen(self, user: int) -> Ints:
        """All events of a user, liked or not, as catalog rows."""
        return self._item[self.split.offsets[user] : self.split.offsets[user + 1]]

    def select_cases(
        self, role: int, limit: int | None = None, seed: int = 0, *, new: bool = False
    ) -> Ints:
        """Positive events held out under `role`, as event numbers; a seeded sample if limited.

        Args:
            role: The part.
            limit: How many; None for all.
            seed: Of the sample.
            new: Without those that are repeated.
        """
        at = self.split.list_cases(role)
        if new and self._repeated is not None:
            at = at[~self._repeated[at]]
        return sample(at, limit, seed)

    def make_case_rows(self, at: Ints) -> BatchRows:
        """One row and one query for each event; the case number is the event's."""
        return self._make_single_rows(at, case=at)

    def make_list_rows(self, lists: CandidateLists) -> BatchRows:
        """As `make_case_rows`, with the candidates of lists in place of the event's own item."""
        return dataclasses.replace(
            self._make_single_rows(lists.at, case=lists.at),
            candidates=lists.candidates,
            labels=lists.labels,
            weight=lists.labels,
        )

    def list_target_events(self, queries: Queries) -> Ints:
        """(N,) events, in order, that some epoch may ask about."""
        if queries != "last":
            return self._train
        last: Ints = np.append(np.diff(self._user[self._train]) > 0, True)
        return self._train[last]

    def replace_targets(self, at: Ints, *notes: str) -> Examples:
        """The same histories and cases with other training targets.

        What training has seen of items and users stays: it is in the histories, target or not.

        Args:
            at: (N,) event numbers, increasing.
            notes: What that leaves out, as sentences for the log.
        """
        out = copy.copy(self)
        out.__dict__.pop("importance", None)  # it is relative to the mean over the targets
        out._train, out.notes = at, (*self.notes, *notes)
        return out

    def lengthen_history(self, max_history: int) -> Examples:
        """The same examples with histories of at least so many of the latest events.

        Args:
            max_history: How many.
        """
        out = copy.copy(self)
        out.max_history = max(max_history, self.max_history)
        return out

    def sample_epoch(self, queries: Queries, per_user: int, seed: int, epoch: int) -> Ints:
        """What an epoch trains on: event numbers, or users with `queries="all"`.

        Args:
            queries: The last training event of a user, `per_user` random ones, or all positions.
            per_user: How many random ones.
            seed: Of the run.
            epoch: Number of the epoch.

        Returns:
            Shuffled event numbers, or user rows.
        """
        rng = np.random.default_rng([seed, epoch, 0])
        users, first, counts = np.unique(
            self._user[self._train], return_index=True, return_counts=True
        )
        if queries == "all":
            return rng.permutation(users)
        if queries == "last":
            return rng.permutation(self._train[first + counts - 1])
        # With replacement: every user has the same number of queries, however few its events.
        offset = (rng.random((len(users), per_user)) * counts[:, None]).astype(np.int64)
        return rng.permutation(self._train[(first[:, None] + offset).ravel()])

    def count_targets(self, queries: Queries, per_user: int) -> npt.NDArray[np.float64]:
        """(I,) how often `sample_epoch` has each item for a target, on average over all epochs.

        That is no share of the positives: a user's last one is a target each time or the only one
        ever, and one of many that are drawn at random comes up rarely.

        Args:
            queries: As in `sample_epoch`.
            per_user: As in `sample_epoch`.
        """
        items, times = self._item[self._train], None
        if queries == "random":
            _, owner, counts = np.unique(
                self._user[self._train], return_inverse=True, return_counts=True
            )
            times = per_user / counts[owner]
        else:  # the same in every epoch, but for the order
            items = self.make_train_rows(
                queries, self.sample_epoch(queries, per_user, 0, 0)
            ).candidates[:, 0]
        return np.bincount(items, times, minlength=self.items).astype(np.float64)

    def make_train_rows(self, queries: Queries, at: Ints) -> BatchRows:
        """The rows of a training batch.

        Args:
            queries: As in `sample_epoch`.
            at: A slice of what `sample_epoch` returned.
        """
        if queries != "all":
            return self._make_single_rows(at, case=np.zeros_like(at))
        owner = self._user[self._train]
        first, end = np.searchsorted(owner, at), np.searchsorted(owner, at, side="right")
        # The latest H targets of each user, in one window of history.
        first = np.maximum(first, end - self.max_history)
        sizes = end - first
        row, place = expand_sizes(sizes)
        event = self._train[first[row] + place]
        stop = self._reach[self._train[end - 1]]
        start = np.maximum(self._first[at], stop - self.max_history)
        prefix = self._before[event] - start[row]
        # With labelled targets a window can begin after an early event's history, but not where
        # nothing comes before: then the event is a query as it would be alone.
        keep = (prefix > 0) | ((prefix == 0) & (start == self._first[at])[row])
        row, event, prefix = row[keep], event[keep], prefix[keep]
        return self._make_rows(at, start, stop, row, prefix, event, np.zeros_like(row))

    def _make_single_rows(self, at: Ints, case: Ints) -> BatchRows:
        user, stop = self._user[at], self._before[at]
        start = np.maximum(self._first[user], stop - self.max_history)
        return self._make_rows(user, start, stop, np.arange(len(at)), stop - start, at, case)

    def _make_rows(
        self, user: Ints, start: Ints, stop: Ints, row: Ints, prefix: Ints, event: Ints, case: Ints
    ) -> BatchRows:
        return BatchRows(
            user=user,
            start=start,
            stop=stop,
            row=row,
            prefix=prefix,
            candidates=self._item[event][:, None],
            labels=self.split.label[event][:, None],
            weight=self._weight[event][:, None],
            case=case,
            event=event,
        )

    def count_examples(self, queries: Queries, per_user: int) -> int:
        """How many examples an epoch has."""
        users = len(np.unique(self._user[self._train]))
        return users * per_user if queries == "random" else users

    def describe_cut(self, queries: Queries) -> tuple[str, ...]:
        """A note on the targets that come before a user's latest H, where that leaves any out.

        With `queries="all"` a user's queries are those of one window.
        """
        counts = np.bincount(self._user[self._train])
        over = int(np.maximum(counts - self.max_history, 0).sum())
        if queries != "all" or not over:
            return ()
        return (
            f"training: {over} of {len(self._train)} targets come before the latest "
            f"{self.max_history} of their users (data.max_history), and are left out.",
        )

    def get_pool(self, sampling: Sampling) -> Ints:
        """Catalog rows that negatives are drawn from, all equally likely; of some, if similar."""
        pool: Ints = self._pools[sampling]
        return pool

    def list_encoded_texts(self, queries: Queries, at: Ints) -> tuple[Ints, Ints, Ints]:
        """What the examples of `at` have encoded, drawn negatives apart.

        Args:
            queries: As in `sample_epoch`.
            at: What `sample_epoch` returned, or a slice of it.

        Returns:
            Catalog rows (T,) of the histories and targets, one example after the other; how many
            each example has (N,), repeats included; and how many queries it has (N,).
        """
        rows = self.make_train_rows(queries, at)
        lengths = rows.stop - rows.start
        owner, place = expand_sizes(lengths)
        history = self._item[self._liked[rows.start[owner] + place]]
        owner = np.concatenate([owner, rows.row])
        items = np.concatenate([history, rows.candidates[:, 0]])
        asked = np.bincount(rows.row, minlength=len(at))
        return items[np.argsort(owner, kind="stable")], lengths + asked, asked

    def list_histories(self, rows: BatchRows) -> Ints:
        """(B, H) catalog rows of the windows of rows, in time order, -1 for none (at the end)."""
        lengths = rows.stop - rows.start
        place = np.arange(max(1, int(lengths.max(initial=0))))[None, :]
        event = self._liked[np.minimum(rows.start[:, None] + place, len(self._liked) - 1)]
        return np.where(place < lengths[:, None], self._item[event], -1)

    def make_batch(
        self,
        rows: BatchRows,
        sizes: Ints,
        negatives: Ints | None = None,
        with_seen: bool = False,
        history: Ints | None = None,
    ) -> Batch:
        """Plans the unique items of a step and points everything into the plan.

        Args:
            rows: The rows and queries.
            sizes: (I,) raw token counts of the catalog.
            negatives: (Q, N) catalog rows that are appended to the candidates, or None.
            with_seen: Also say what each user had before the case, liked or not.
            history: (B, H) catalog rows that the queries see in place of their windows, -1 for
                none (at the end); None: the windows.
        """
        history = self.list_histories(rows) if history is None else history
        candidates, labels, weight = rows.candidates, rows.labels, rows.weight
        if negatives is not None:
            none = np.zeros(negatives.shape, dtype=np.float32)
            candidates = np.concatenate([candidates, negatives], axis=1)
            labels, weight = np.hstack([labels, none]), np.hstack([weight, none])
        first = np.unique(candidates[candidates >= 0])
        disliked = None
        if self._dislikes:
            disliked = self._list_disliked(self._user[rows.event], self._start[rows.event])
        known = history if disliked is None else np.concatenate([history.ravel(), disliked.ravel()])
        plan = np.concatenate([first, np.setdiff1d(known[known >= 0], first)])
        # Candidates come first: who makes users of texts asks for their vectors alone.
        # Only what the plan names is written and read, the last number for none.
        places = np.empty(self.items + 1, dtype=np.int64)
        places[plan], places[-1] = np.arange(len(plan)), -1

        apart = with_seen and self._baskets is not None
        weigh: Tensor | None = None
        if self.importance is not None and not with_seen:
            weigh = torch.from_numpy(self.importance[rows.event])

        def locate(x: Ints) -> Tensor:
            return torch.from_numpy(places[x])

        return Batch(
            plan=ItemBatch(torch.from_numpy(plan), tuple(sizes[plan].tolist()), first=len(first)),
            users=torch.from_numpy(rows.user),
            history=locate(history),
            query=torch.from_numpy(np.stack([rows.row, rows.prefix], axis=1)),
            candidates=locate(candidates),
            labels=torch.from_numpy(labels),
            weight=torch.from_numpy(weight),
            case=torch.from_numpy(rows.case),
            seen=torch.from_numpy(self._list_seen_before(rows.case) if with_seen else NOTHING),
            basket_items=torch.from_numpy(self.list_basket_items(rows.case)) if apart else None,
            context={k: torch.from_numpy(of[rows.event]) for k, of in self.context.items()},
            importance=weigh,
            disliked=None if disliked is None else locate(disliked),
        )

    def _list_disliked(self, users: Ints, ends: Ints) -> Ints:
        """The latest events that users (Q,) did not like, before some event (Q,) of theirs.

        Returns:
            (Q, D) catalog rows in time order, at most H of a user, -1 for none (at the end).
        """
        before, first = self._unliked.searchsorted(ends), self.split.offsets[users]
        start = np.maximum(self._unliked.searchsorted(first), before - self.max_history)
        lengths = np.where(users < 0, 0, before - start)
        place = np.arange(int(lengths.max(initial=0)))[None, :]
        if not place.size:
            return np.empty((len(users), 0), dtype=np.int64)
        event = self._unliked[np.minimum(start[:, None] + place, len(self._unliked) - 1)]
        return np.where(place < lengths[:, None], self._item[event], -1)

    def list_basket_items(self, case: Ints) -> Ints:
        """(S, 2) place of a case and catalog row of the other liked items of its basket.

        They are no wrong answers: they were chosen at the same moment.
        """
        if self._baskets is None:
            return NOTHING
        found = self._baskets.list_basket_items(np.maximum(case, 0))
        return found[case[found[:, 0]] >= 0]

    def _list_seen_before(self, case: Ints) -> Ints:
        """(S, 2) place of a case and catalog row of every earlier event of its user."""
        at = self._start[np.maximum(case, 0)]
        start = self.split.offsets[self._user[at]]
        sizes = np.where(case >= 0, at - start, 0)
        query, place = expand_sizes(sizes)
        return np.stack([query, self._item[start[query] + place]], axis=1)

    def _find_codes_now(self, name: str, users: Sequence[int]) -> Tensor:
        """(Q,) codes of users (Q,) after all events; 0 for someone unknown (-1)."""
        codes, rows = self._now.get(name), np.asarray(users, dtype=np.int64)
        if codes is None:
            return torch.zeros(len(rows), dtype=torch.long)
        return torch.from_numpy(np.where(rows < 0, 0, codes[rows]))

    def make_serving_batch(self, items: Ints, user: int = -1) -> Batch:
        """One query of unknown context that sees the last H of these rows; no candidates.

        Args:
            items: (N,) catalog rows, in time order.
            user: Row of the user, or -1 for someone unknown.
        """
        return self.make_serving_batch_of([items], [user])

    def make_serving_batch_of(self, histories: Sequence[Ints], users: Sequence[int]) -> Batch:
        """As `make_serving_batch`, of Q queries.

        Args:
            histories: For each, catalog rows (N,) in time order.
            users: For each, the row of the user, or -1 for someone unknown.
        """
        had = [items[-self.max_history :] for items in histories]
        lengths, count = np.array([len(items) for items in had]), len(had)
        disliked = None
        if self._dislikes:
            rows = np.asarray(users, dtype=np.int64)
            disliked = self._list_disliked(rows, self.split.offsets[rows + 1])
        own = [] if disliked is None else [disliked[disliked >= 0]]
        plan = np.unique(np.concatenate([*had, *own]))
        places = np.full((count, int(lengths.max(initial=0))), -1, dtype=np.int64)
        for row, items in zip(places, had, strict=True):
            row[: len(items)] = np.searchsorted(plan, items)
        none = torch.zeros(count, 0)
        return Batch(
            plan=ItemBatch(torch.from_numpy(plan), ()),
            users=torch.tensor(users),
            history=torch.from_numpy(places),
            query=torch.from_numpy(np.stack([np.arange(count), lengths], axis=1)),
            candidates=none.long(),
            labels=none,
            weight=none,
            case=torch.full((count,), -1),
            seen=torch.from_numpy(NOTHING),
            context={name: self._find_codes_now(name, users) for name in self.context},
            disliked=None if disliked is None else _locate_sorted(plan, disliked),
        )


def _locate_sorted(plan: Ints, rows: Ints) -> Tensor:
    """Places of catalog rows in ascending ones that hold them all, -1 for -1."""
    return torch.from_numpy(np.where(rows >= 0, np.searchsorted(plan, rows), -1))
