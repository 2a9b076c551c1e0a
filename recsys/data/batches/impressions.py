"""Impressions: what was shown together, as lists to rank and as negatives to train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.data.batches.examples import TRAIN, Examples
from recsys.data.batches.negatives import make_query_key
from recsys.data.batches.rows import BatchRows, CandidateLists
from recsys.data.columns.arrays import Ints, expand_sizes, sample
from recsys.data.splits.split import Split
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


def drop_lone_clicks(examples: Examples) -> Examples:
    """Without the training clicks that were shown beside no item without a click.

    They have no negative. That includes clicks of which only a history tells.

    Raises:
        ConfigError: There are no impressions, the split cuts one, or no click is left.
        DataError: Events of an impression have others between them.
    """
    split = examples.split
    shown = _check_impressions(split)
    has_negative = np.zeros(len(shown), dtype=np.bool_)
    has_negative[shown[_find_negatives(split, shown)]] = True
    at = examples.list_target_events("random")
    first = shown[at]
    kept = (first >= 0) & has_negative[first]
    if not kept.any():
        raise ConfigError(
            "data.negatives=impression finds no training click with a history or text that was "
            "shown beside an item without a click; set it to drawn."
        )
    note = (
        f"training: {int((~kept).sum())} of {len(at)} clicks are no targets, as they were not "
        "shown beside an item without a click."
    )
    return examples.replace_targets(at[kept], *([] if kept.all() else [note]))


def _find_negatives(split: Split, shown: Ints) -> Ints:
    """Training events of impressions that were not clicked, as event numbers."""
    return np.flatnonzero((split.role == TRAIN) & (split.label <= 0) & (shown >= 0))


class ImpressionSampler:
    """Draws what was shown with a query's target and not clicked.

    Args:
        split: The events, with impressions.

    Raises:
        ConfigError: There are no impressions, or the split cuts one.
        DataError: Events of an impression have others between them.
    """

    def __init__(self, split: Split) -> None:
        self._shown = _check_impressions(split)
        self._negatives = _find_negatives(split, self._shown)
        self._items: Ints = split.item[self._negatives].astype(np.int64)
        self._liked: Ints = np.flatnonzero(split.label > 0)
        self._ends: Ints = np.append(_find_runs(self._shown)[1:], len(self._shown))

    def sample(self, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
        """(Q, n) items of the target's impression without a click; -1 where there are fewer.

        Drawn without replacement, as nobody is shown an item twice at once.
        """
        place = rows.start[rows.row] + rows.prefix
        target = rows.candidates[:, 0]
        # A history ends before the impression, whose first click is the next positive event.
        shown = self._shown[self._liked[place]]
        stop = self._ends[np.searchsorted(self._ends, shown, side="right")]
        low, high = np.searchsorted(self._negatives, shown), np.searchsorted(self._negatives, stop)
        out = np.full((len(target), n), -1, dtype=np.int64)
        for q in range(len(target)):
            rng = np.random.default_rng(make_query_key(rows, q, seed, epoch))
            drawn = rng.permutation(int(high[q] - low[q]))[:n]
            out[q, : len(drawn)] = self._items[low[q] + drawn]
        out[out == target[:, None]] = -1
        return out
