"""What happened at once: events of one impression or basket, none of them another one's past."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.errors import DataError

if TYPE_CHECKING:
    from recsys.data.splits.split import Split

_FLAGS = {"true": True, "1": True, "false": False, "0": False}
_PIECE = 1_000_000  # events whose ids are compared at a time


def find_first_events(ids: pl.Series, starts: Ints, order: Ints) -> Ints:
    """(N,) first event of the same id within the same group of events; -1 where the id is null.

    Events of one id mostly stand together: only where such a run begins are ids looked up.

    Args:
        ids: An id a row of the file.
        starts: (G,) event where each group begins, such as the events of a user.
        order: (N,) row of each event.
    """
    ids = ids.rechunk()
    begins = np.zeros(len(order), dtype=np.bool_)
    for start in range(0, len(order), _PIECE):
        before = max(start - 1, 0)
        piece = ids.gather(order[before : start + _PIECE])
        begins[before + 1 : start + _PIECE] |= piece[1:].ne_missing(piece[:-1]).to_numpy()
    begins[starts] = True
    event = np.flatnonzero(begins)
    group = np.searchsorted(starts, event, side="right")
    runs = pl.DataFrame({"group": group, "id": ids.gather(order[event]), "event": event})
    first = pl.col("event").first().over("group", "id")
    found = runs.select(pl.when(pl.col("id").is_null()).then(-1).otherwise(first))
    sizes = np.diff(event, append=len(order))
    return np.repeat(found.to_series().cast(pl.Int64).to_numpy(), sizes)


def find_basket_ids(frame: pl.DataFrame) -> pl.Series | None:
    """The column `basket` of interactions, an empty text being none; None without that column."""
    if "basket" not in frame.columns:
        return None
    ids = frame["basket"]
    return ids.replace("", None) if ids.dtype == pl.String else ids


def find_target_flags(frame: pl.DataFrame) -> pl.Series | None:
    """The column `is_target` of interactions; None without that column.

    Raises:
        DataError: A place holds no truth value.
    """
    if "is_target" not in frame.columns:
        return None
    words = frame["is_target"].cast(pl.String).str.strip_chars().str.to_lowercase()
    flags = words.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)
    if flags.null_count():
        row = int(flags.is_null().arg_true()[0])
        raise DataError(
            f"interactions: row {row + 1} of column 'is_target' holds '{frame['is_target'][row]}'; "
            "give true or false in every row, or rename the column."
        )
    return flags


def find_moments(starts: Ints, count: int, changing: Sequence[NDArray[np.generic] | None]) -> Ints:
    """(G,) event where each moment begins: where a user does, or a column that is there changes.

    Args:
        starts: (U,) event where each user begins.
        count: N, how many events there are.
        changing: (N,) columns in the order of the events.
    """
    begins = np.zeros(count, dtype=np.bool_)
    begins[starts] = True
    for column in changing:
        if column is not None:
            begins[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(begins)


def compute_basket_order(
    ids: pl.Series, items: pl.Series, item: NDArray[np.int32], order: Ints, starts: Ints
) -> Ints:
    """(N,) places of the events in an order that the lines of a basket do not decide.

    Events of one moment and one basket stand together, in an order drawn from the ids of their
    items alone: which of them is held out as the last one, or is cut off a long history, must not
    hang on how a cashier went through a basket.

    Args:
        ids: A basket a row of the file, null for none.
        items: Ids of the catalog.
        item: (N,) catalog rows of the events.
        order: (N,) row of each event.
        starts: (G,) event where each moment of a user begins.
    """
    first = find_first_events(ids, starts, order)
    first = np.where(first < 0, np.arange(len(order)), first)
    known = np.array([zlib.crc32(each.encode()) for each in items.to_list()], dtype=np.uint64)
    crc = known[item]
    # splitmix64's last step (Steele, Lea and Flood, OOPSLA 2014), anew for each moment: an item
    # that always came last would be held out wherever it stands
    total = np.repeat(np.add.reduceat(crc, starts), np.diff(starts, append=len(order)))
    key = (crc + total * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        key = np.bitwise_xor(key, np.right_shift(key, np.uint64(shift))) * np.uint64(factor)
    places: Ints = np.lexsort([key, first]).astype(np.int64)
    return places


class Baskets:
    """The liked events of a split, by basket.

    Args:
        split: The events, with baskets.
    """

    def __init__(self, split: Split) -> None:
        assert split.basket is not None
        self._basket, self._item = split.basket, split.item
        liked = np.flatnonzero((split.basket >= 0) & (split.label > 0))
        self._events: Ints = liked[np.argsort(split.basket[liked], kind="stable")]
        self._owner: Ints = split.basket[self._events]

    def list_basket_items(self, at: Ints) -> Ints:
        """(S, 2) place in `at` and catalog row of the other liked items of each event's basket."""
        owner = np.where(self._basket[at] < 0, len(self._basket), self._basket[at])
        low = np.searchsorted(self._owner, owner)
        place, within = expand_sizes(np.searchsorted(self._owner, owner, side="right") - low)
        item = self._item[self._events[low[place] + within]].astype(np.int64)
        other = item != self._item[at][place]
        return np.stack([place[other], item[other]], axis=1)


def describe_baskets(split: Split) -> tuple[str, ...]:
    """What baskets do to a split, as sentences for the log; none without baskets."""
    if split.basket is None:
        return ()
    inside = split.basket >= 0
    sizes = np.bincount(split.basket[inside], minlength=len(split.basket))
    shared = inside & (sizes[split.basket] > 1)
    test = split.list_cases(2)
    out = [
        f"baskets: {int(shared.sum())} of {len(shared)} events, and {int(shared[test].sum())} of "
        f"{len(test)} test targets, share a basket with others of the same user: a history ends "
        "before the basket of what is asked for, and the other liked items of that basket are not "
        "ranked with it."
    ]
    least = np.full(len(inside), 2, dtype=np.int8)
    np.minimum.at(least, split.basket[inside], split.role[inside])
    cut = int((least[split.basket[test]] < 2)[inside[test]].sum())
    if cut:
        out.append(
            f"baskets: the split holds out events, not baskets: {cut} of {len(test)} test targets "
            "have other events of their basket in training or validation, which are targets "
            "there, and never in a history of that basket."
        )
    return tuple(out)
