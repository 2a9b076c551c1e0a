"""What is left out of a data set before it is split, on request; the defaults leave all in.

Filters come after the source and before `max_users`, `max_items` and the split, in this order:
event types, time, rating, repeats, item texts, k-core. They see all events, those that will be
test targets as well, as is usual in the field: a figure belongs to the data that is left. The
fingerprint of a run is that of the tables that are left, so that every filter with an effect is in
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import polars as pl

from recsys.data.columns.times import parse_times
from recsys.data.columns.words import COUNTED
from recsys.data.tables import Tables
from recsys.errors import ConfigError, DataError

Repeats = Literal["keep", "first", "last"]

_REPEATS = {
    "first": "data.repeats: all events count, held-out ones included: no target is an item that "
    "the user had before.",
    "last": "data.repeats: all events count, held-out ones included: what a user has again in "
    "validation or test is left out of training, which so depends on what is held out; "
    "data.repeats=first leaves training whole.",
}


def filter_tables(
    tables: Tables,
    *,
    event_column: str = "event",
    event_types: Mapping[str, float] | None = None,
    since: str | None = None,
    until: str | None = None,
    min_rating: float | None = None,
    repeats: Repeats = "keep",
    min_text: int | None = None,
    k_core: int | None = None,
) -> Tables:
    """The filtered tables; `notes` says how much each filter took.

    Args:
        tables: Checked tables.
        event_column: Column with the type of an event.
        event_types: Types that stay, and what each weighs; it multiplies a weight that is there.
        since: First moment that stays, as ISO date or time (UTC).
        until: First moment that does not.
        min_rating: Lowest rating that stays.
        repeats: Of several events of a user with one item, keep all, the first or the last.
        min_text: Fewest words of an item's text; of Chinese and Japanese, characters.
        k_core: Fewest events of a user and of an item, counted again until nothing changes. Users
            and items without any go as well.

    Raises:
        ConfigError: A filter needs a column that is not there, or its value cannot be read.
        DataError: Nothing is left.
    """
    notes = list(tables.notes)
    events = tables.interactions
    steps: tuple[tuple[str, Callable[[pl.DataFrame], pl.DataFrame]], ...] = (
        ("event_types", lambda f: _filter_event_types(f, event_column, event_types or {})),
        ("since and until", lambda f: _filter_period(f, since, until)),
        ("min_rating", lambda f: _filter_ratings(f, min_rating)),
        ("repeats", lambda f: _drop_repeats(f, repeats)),
    )
    for name, left in steps:
        before, events = events, left(events)
        if events is not before:
            notes.append(_describe_filter(name, before.height, events.height, "interactions"))
    if repeats != "keep":
        notes.append(_REPEATS[repeats])
    out = Tables(events, tables.items, tables.users, tuple(notes))
    if min_text is not None:
        words = pl.col("text").str.count_matches(COUNTED)
        texts = out.items.filter(words >= min_text)
        kept = events.filter(pl.col("item").is_in(texts["item"].to_list()))
        out = _add_notes(out, "min_text", Tables(kept, texts, out.users))
    if k_core is not None:
        out = _filter_core(out, k_core)
    if out.interactions.is_empty():
        raise DataError(f"The filters leave no interactions ({' '.join(out.notes)}); relax one.")
    return out


def _filter_core(tables: Tables, k_core: int) -> Tables:
    """The tables with users and items of at least `k_core` events, and a note."""
    core = _filter_k_core(tables.interactions, k_core)
    items, users = (
        frame.filter(pl.col(key).is_in(core[key].unique().to_list()))
        for key, frame in (("item", tables.items), ("user", tables.users))
    )
    out = _add_notes(tables, "k_core", Tables(core, items, users))
    said = "data.k_core: events are counted before the split, those that it holds out included."
    return replace(out, notes=(*out.notes, said))


def _add_notes(before: Tables, name: str, after: Tables) -> Tables:
    """What is left, with the notes of before and what this filter took from each table."""
    notes = [
        _describe_filter(name, old.height, new.height, what)
        for what, old, new in (
            ("interactions", before.interactions, after.interactions),
            ("items", before.items, after.items),
            ("users", before.users, after.users),
        )
        if old.height != new.height or what == "interactions"
    ]
    return replace(after, notes=(*before.notes, *notes))


def _describe_filter(name: str, before: int, after: int, what: str) -> str:
    return f"data.{name}: {before - after} of {before} {what} left out."


def _check_column(frame: pl.DataFrame, column: str, key: str) -> None:
    if column not in frame.columns:
        raise ConfigError(
            f"data.{key} needs the column '{column}' of the interactions, which have "
            f"{', '.join(frame.columns)}; leave it out or name the column."
        )


def _filter_event_types(
    frame: pl.DataFrame, column: str, types: Mapping[str, float]
) -> pl.DataFrame:
    if not types:
        return frame
    _check_column(frame, column, "event_types")
    kinds = frame[column].cast(pl.String)
    unknown = sorted(set(types) - set(kinds.unique().drop_nulls().to_list()))
    if unknown:
        known = ", ".join(sorted(kinds.unique().drop_nulls().to_list())[:20])
        raise ConfigError(f"data.event_types: no event is of the type '{unknown[0]}'; {known} are.")
    bad = [name for name, weight in types.items() if not 0 < weight < float("inf")]
    if bad:
        raise ConfigError(f"data.event_types.{bad[0]} is {types[bad[0]]}; give a weight above 0.")
    weights = {name: float(weight) for name, weight in types.items()}
    weight = kinds.replace_strict(weights, default=None, return_dtype=pl.Float64)
    if "weight" in frame.columns:
        weight = weight * frame["weight"]
    elif set(types.values()) == {1.0}:
        return frame.filter(weight.is_not_null())
    return frame.with_columns(weight.alias("weight")).filter(weight.is_not_null())


def _filter_period(frame: pl.DataFrame, since: str | None, until: str | None) -> pl.DataFrame:
    for name, text in (("since", since), ("until", until)):
        if text is None:
            continue
        _check_column(frame, "time", name)
        try:
            moment = int(parse_times(pl.Series(name, [str(text)]), "data")[0])
        except DataError:
            moment = -1
        if moment < 0 or str(text).isdigit():
            raise ConfigError(f"data.{name} is '{text}'; give an ISO date such as 2018-01-31.")
        keep = pl.col("time") >= moment if name == "since" else pl.col("time") < moment
        frame = frame.filter(keep)
    return frame


def _filter_ratings(frame: pl.DataFrame, least: float | None) -> pl.DataFrame:
    if least is None:
        return frame
    _check_column(frame, "rating", "min_rating")
    return frame.filter(pl.col("rating") >= least)


def _drop_repeats(frame: pl.DataFrame, repeats: Repeats) -> pl.DataFrame:
    """Among equal times, file order is the order; the rows stay in file order."""
    if repeats == "keep":
        return frame
    order = frame.with_row_index("_row").select("_row", "user", "item", *_find_time_columns(frame))
    order = order.sort(*_find_time_columns(frame), "_row") if _find_time_columns(frame) else order
    kept = order.unique(["user", "item"], keep=repeats, maintain_order=True)["_row"].sort()
    return frame[kept]


def _find_time_columns(frame: pl.DataFrame) -> list[str]:
    return ["time"] if "time" in frame.columns else []


def _filter_k_core(frame: pl.DataFrame, k: int) -> pl.DataFrame:
    """Drops users and items with fewer than k events until all have as many."""
    while True:
        # Without a rare item a user may fall below k, and without that user another item.
        before = frame.height
        for key in ("user", "item"):
            counts = frame.group_by(key).len().filter(pl.col("len") >= k)
            frame = frame.join(counts, on=key, how="semi", maintain_order="left")
        if frame.height == before:
            return frame
