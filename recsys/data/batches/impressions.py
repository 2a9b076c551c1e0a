"""Impressions: what was shown together, as lists to rank and as negatives to train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.data.batches.examples import TRAIN, Examples, Sampling
from recsys.data.batches.rows import BatchRows, CandidateLists
from recsys.data.columns.arrays import Ints, expand_sizes, sample
from recsys.data.splits.split import Split
from recsys.data.splits.targets import Flags
from recsys.errors import ConfigError, DataError

_PARTS = ("training", "validation", "test")


class ImpressionCounts(NamedTuple):
    """Impressions of a part that say nothing about a ranking.

    Attributes:
        impressions: All of the part.
        without_positive: Those in which nothing was clicked.
        without_negative: Those in which all was clicked.
    """

    impressions: int
    without_positive: int
    without_negative: int


class _ImpressionGroups(NamedTuple):
    """The impressions of a part, in the order of their first events.

    Attributes:
        events: (N,) event numbers, one impression after the other.
        first: (S,) first event of each impression.
        sizes: (S,) how many events each has.
        positives: (S,) how many of them are positive.
    """

    events: Ints
    first: Ints
    sizes: Ints
    positives: Ints


def _find_runs(shown: Ints) -> Ints:
    """First event of each stretch of events that belong to one impression, or to none."""
    return np.flatnonzero(np.concatenate([[True], shown[1:] != shown[:-1]])[: len(shown)])


def _check_impressions(split: Split) -> Ints:
    """(N,) first event of the impression of each event, -1 for none.

    Raises:
        ConfigError: There are no impressions, or the split cuts one.
        DataError: Events of an impression have others between them.
    """
    if split.shown is None:
        raise ConfigError(
            "the interactions have no column 'impression'; use a source that has impressions "
            "(mind), or another evaluation.protocol and data.negatives."
        )
    shown: Ints = split.shown
    runs = _find_runs(shown)
    runs = runs[shown[runs] >= 0]
    # Within a stretch a role is cut where it changes; a later stretch goes on with the first's.
    change = (split.role[1:] != split.role[:-1]) & (shown[1:] == shown[:-1]) & (shown[1:] >= 0)
    other = runs[split.role[shown[runs]] != split.role[runs]]
    cut = np.concatenate([np.flatnonzero(change) + 1, other])
    if len(cut):
        raise ConfigError(
            f"split {split.name} puts events of one impression into two parts (event "
            f"{int(cut.min())} of the sorted events is one); use data.split=given or time."
        )
    apart = runs[shown[runs] != runs]
    if len(apart):
        raise DataError(
            f"the rows of one impression have others between them (event {int(apart[0])} "
            "of the sorted events is one); give all rows of an impression the same time, one "
            "after the other."
        )
    return shown


def _group_impressions(split: Split, role: int) -> _ImpressionGroups:
    shown = _check_impressions(split)
    events = np.flatnonzero((split.role == role) & (shown >= 0))
    owner = shown[events]
    begins = _find_runs(owner)
    liked = np.concatenate([[0], np.cumsum(split.label[events] > 0)])
    ends = np.append(begins[1:], len(events)) if len(begins) else begins
    return _ImpressionGroups(events, owner[begins], ends - begins, liked[ends] - liked[begins])


def count_impressions(split: Split, role: int) -> ImpressionCounts:
    """Counts the impressions of a part, and those that `make_impression_lists` leaves out.

    Raises:
        ConfigError: There are no impressions, or the split cuts one.
        DataError: Events of an impression have others between them.
    """
    groups = _group_impressions(split, role)
    return ImpressionCounts(
        len(groups.first),
        int((groups.positives == 0).sum()),
        int((groups.positives == groups.sizes).sum()),
    )


def make_impression_lists(
    split: Split, role: int, limit: int | None = None, seed: int = 0
) -> CandidateLists:
    """A list an impression, with its labels; the history ends before the impression.

    Left out are impressions without a positive and those without a negative.

    Args:
        split: The events.
        role: The part.
        limit: Keep a seeded sample of so many; None for all.
        seed: Of that sample.

    Raises:
        ConfigError: There are no impressions, the split cuts one, or none is left.
        DataError: Events of an impression have others between them.
    """
    groups = _group_impressions(split, role)
    able = np.flatnonzero((groups.positives > 0) & (groups.positives < groups.sizes))
    if not len(able):
        raise ConfigError(
            f"no impression of {_PARTS[role]} holds a click and an item without one; choose "
            "another split or data.positive_from=1."
        )
    chosen = sample(able, limit, seed)
    start = (np.cumsum(groups.sizes) - groups.sizes)[chosen]
    sizes = groups.sizes[chosen]
    owner, place = expand_sizes(sizes)
    event = groups.events[start[owner] + place]
    candidates = np.full((len(chosen), int(sizes.max())), -1, dtype=np.int64)
    candidates[owner, place] = split.item[event]
    labels = np.zeros(candidates.shape, dtype=np.float32)
    labels[owner, place] = split.label[event] > 0
    return CandidateLists(
        at=groups.first[chosen],
        candidates=candidates,
        labels=labels,
        inserted=np.zeros(len(chosen), dtype=np.bool_),
    )


class ImpressionExamples(Examples):
    """Trains on the clicks of impressions, against what was shown with them and not clicked.

    Args:
        split: The events, with impressions.
        items: Number of items in the catalog.
        max_history: How many of the latest positive events a history keeps.
        train_users: Train on a seeded sample of so many users; None for all.
        seed: Of that sample.
        profile_events: First events of a user that are in the user's text, and so no targets.
        worded: (N,) whether a text says something of each event's query where no history does.

    Raises:
        ConfigError: There are no impressions, the split cuts one, or training has no click beside
            something else.
        DataError: Events of an impression have others between them.
    """

    def __init__(
        self,
        split: Split,
        items: int,
        max_history: int,
        train_users: int | None = None,
        seed: int = 0,
        profile_events: int = 0,
        *,
        worded: Flags | None = None,
    ) -> None:
        super().__init__(
            split,
            items,
            max_history,
            train_users=train_users,
            seed=seed,
            profile_events=profile_events,
            worded=worded,
        )
        self._shown = _check_impressions(split)
        dull = (split.role == TRAIN) & (split.label <= 0) & (self._shown >= 0)
        self._dull: Ints = np.flatnonzero(dull)
        with_dull = np.zeros(len(dull), dtype=np.bool_)
        with_dull[self._shown[self._dull]] = True
        self._ends: Ints = np.append(_find_runs(self._shown)[1:], len(dull))
        # Clicks of which only a history tells were not shown beside anything.
        first = self._shown[self._train]
        beside = (first >= 0) & with_dull[first]
        if alone := int((~beside).sum()):
            self.notes += (
                f"training: {alone} of {len(beside)} clicks are no targets, as they were not shown "
                "beside an item without a click.",
            )
        self._train = self._train[beside]
        if not len(self._train):
            raise ConfigError(
                "data.negatives=impression finds no training click with a history or text that was "
                "shown beside an item without a click; set it to drawn."
            )

    def sample_negatives(
        self, rows: BatchRows, n: int, sampling: Sampling, seed: int, epoch: int
    ) -> Ints:
        """(Q, n) items of the target's impression without a click; -1 where there are fewer.

        Drawn without replacement from (seed, epoch, user, place, target), so that it does not
        matter which rank draws.

        Args:
            rows: The queries.
            n: Draws of a query.
            sampling: Only "uniform": what was shown is all alike.
            seed: Of the run.
            epoch: Number of the epoch.
        """
        if sampling != "uniform":
            raise ValueError("an impression's items are drawn uniformly")
        place = rows.start[rows.row] + rows.prefix
        target = rows.candidates[:, 0]
        # A history ends before the impression, whose first click is the next positive event.
        shown = self._shown[self._liked[place]]
        stop = self._ends[np.searchsorted(self._ends, shown, side="right")]
        low, high = np.searchsorted(self._dull, shown), np.searchsorted(self._dull, stop)
        out = np.full((len(target), n), -1, dtype=np.int64)
        for q, user in enumerate(rows.user[rows.row].tolist()):
            key = [seed, epoch, user, int(place[q]), int(target[q])]
            size = int(high[q] - low[q])
            drawn = np.random.default_rng(key).permutation(size)[:n]
            out[q, : len(drawn)] = self._item[self._dull[low[q] + drawn]]
        out[out == target[:, None]] = -1
        return out
