"""Old and newer events as one data set, split at two moments of the newer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config.compose import RunConfig
from recsys.config.schema import DataOptions
from recsys.data.columns.times import parse_times
from recsys.data.filters import filter_tables
from recsys.data.prepare import load_tables, split_tables
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template
from recsys.data.splits.split import TEST, TRAIN, VAL
from recsys.data.tables import Tables, check_tables, check_values
from recsys.errors import ConfigError, DataError

PARTS = {TRAIN: "train", VAL: "val", TEST: "test"}
SPLIT = "split"
"""Column of the parts, which `data.split=given` reads."""


@dataclass(frozen=True)
class NewerEvents:
    """A file of newer events, and what is said of their items.

    Attributes:
        file: User, item and time a row, or a service's feedback.
        items: File of items that the run does not have; empty for none.
        user: Column of the user.
        item: Column of the item, in both files.
        time: Column of the time.
        rating: Column of the rating; empty for none.
        leave_out: Types of events that do not count.
    """

    file: Path
    items: str = ""
    user: str = "user"
    item: str = "item"
    time: str = "time"
    rating: str = ""
    leave_out: tuple[str, ...] = ("dislike",)


@dataclass(frozen=True)
class MergedData:
    """One data set, as the new run sees it and as the old one did.

    Attributes:
        new: All tables; column `split` has the parts of the new run.
        old: The same tables; its training part is what the old run was trained on, and its test
            part that of the new run.
        notes: What was left out, and how much is new.
        counts: Events of each part of the new run, by name.
    """

    new: Tables
    old: Tables
    notes: tuple[str, ...]
    counts: dict[str, int]


def merge_events(
    run: RunConfig, newer: NewerEvents, val_fraction: float, test_fraction: float
) -> MergedData:
    """Reads a run's own data and newer events, and puts them together.

    The latest of the newer events are the test, those before them the validation; all that is
    earlier trains. The catalog is the old one with new items behind it, so that rows of learned
    tables keep their meaning.

    Args:
        run: The run.
        newer: The newer events.
        val_fraction: Share of them that validate.
        test_fraction: Share of them that test.

    Raises:
        ConfigError: The run's events have no times, or columns that the newer ones lack.
        DataError: A file, row or column cannot be used, or nothing is new.
    """
    tables = load_tables(run.data)
    if "time" not in tables.interactions.columns:
        raise ConfigError("the run's events have no times, so that none is newer; train anew.")
    split = split_tables(run.data, tables)
    events, notes = _read_events(newer, run.data)
    items, more = _add_items(tables.items, newer, run.data)
    notes += more
    known = events["item"].is_in(items["item"].to_list())
    if not known.all():
        some = events.filter(~known)["item"].unique(maintain_order=True).to_list()
        notes.append(
            f"{int((~known).sum())} events with {len(some)} unknown items are left out, such as "
            f"'{some[0]}'; give their texts by items=FILE."
        )
        events = events.filter(known)
    before = tables.interactions
    fresh = events.join(before, on=["user", "item", "time"], how="anti", maintain_order="left")
    if len(fresh) < len(events):
        notes.append(f"{len(events) - len(fresh)} events are in the run's data already.")
    if fresh.is_empty():
        raise DataError(f"{newer.file}: no event of it is new to the run; there is nothing to do.")
    before, fresh = _fit_columns(before, fresh, run, newer)
    users = _add_users(tables.users, fresh)
    notes.append(
        f"{len(fresh):,} newer events, {len(users) - len(tables.users):,} new users, "
        f"{len(items) - len(tables.items):,} new items."
    )
    merged = pl.concat([before, fresh], how="diagonal_relaxed")
    roles = _cut(merged["time"].to_numpy(), fresh["time"].to_numpy(), val_fraction, test_fraction)
    trained = np.zeros(len(merged), dtype=np.bool_)
    assert split.row is not None
    trained[split.row[split.role == TRAIN]] = True
    where = str(newer.file)
    new = _make_tables(merged, items, users, roles, run.data, where)
    old = _make_tables(merged, items, users, _restrict(merged, roles, trained), run.data, where)
    counts = {name: int((new.interactions[SPLIT] == name).sum()) for name in PARTS.values()}
    return MergedData(new, old, tuple(notes), counts)


def _read_events(newer: NewerEvents, data: DataOptions) -> tuple[pl.DataFrame, list[str]]:
    """The newer events under our names; those of types that do not count are left out."""
    path, notes = newer.file, []
    numeric = [name for name in (newer.time, newer.rating) if name]
    frame = tabular.read_table(path, numeric)
    names = {"user": newer.user, "item": newer.item, "time": newer.time}
    if newer.rating:
        names["rating"] = newer.rating
    for ours, theirs in names.items():
        if theirs not in frame.columns:
            raise DataError(
                f"{path} has no column '{theirs}' (there are: {', '.join(frame.columns)}); name "
                f"the one that holds it by {ours}=COLUMN."
            )
    frame = frame.select(
        *(pl.col(theirs).alias(ours) for ours, theirs in names.items()),
        pl.exclude(*names, *names.values()),
    )
    for name in ("user", "item"):
        column = tabular.parse_ids(frame[name], str(path))
        check_values(column, str(path))
        frame = frame.with_columns(column)
    frame = frame.with_columns(parse_times(frame["time"], str(path)).alias("time"))
    if newer.rating:
        column = tabular.parse_numbers(frame["rating"], str(path))
        frame = frame.with_columns(column.alias("rating"))
    kind = data.event_column
    if kind in frame.columns and not data.event_types:
        kept = frame.filter(~pl.col(kind).cast(pl.String).is_in(newer.leave_out).fill_null(False))
        if len(kept) < len(frame):
            kinds = ", ".join(newer.leave_out)
            notes.append(f"{len(frame) - len(kept)} events of the type {kinds} are left out.")
        frame = kept
    elif data.event_types:
        if kind not in frame.columns:
            raise DataError(f"{path} has no column '{kind}', by which the run weighs its events.")
        weights = pl.col(kind).cast(pl.String).replace_strict(data.event_types, default=None)
        frame = frame.with_columns(weights.cast(pl.Float64).alias("weight"))
        frame = frame.filter(pl.col("weight").is_not_null())
    return frame.unique(maintain_order=True), notes


def _add_items(
    items: pl.DataFrame, newer: NewerEvents, data: DataOptions
) -> tuple[pl.DataFrame, list[str]]:
    """The catalog with the new items behind it."""
    if not newer.items:
        return items, []
    frame = tabular.read_table(Path(newer.items))
    if newer.item not in frame.columns:
        raise DataError(f"{newer.items} has no column '{newer.item}'; name it by item=COLUMN.")
    frame = frame.rename({newer.item: "item"})
    frame = frame.with_columns(tabular.parse_ids(frame["item"], newer.items))
    template = data.source.item_template
    if "text" not in frame.columns:
        if template is None:
            raise DataError(f"{newer.items} has no column 'text', which is what the model reads.")
        frame = frame.with_columns(fill_template(frame, template, data.source.text_lists))
    fresh = frame.filter(~pl.col("item").is_in(items["item"].to_list()))
    notes = []
    shared = frame.join(items, on="item", suffix="_old").filter(
        pl.col("text") != pl.col("text_old")
    )
    if len(shared):
        notes.append(
            f"{len(shared)} items have another text in {newer.items}, such as "
            f"'{shared['item'][0]}'; they keep that of the run."
        )
    fresh = fresh.select(
        pl.col(name).cast(items.schema[name]) for name in fresh.columns if name in items.columns
    )
    return pl.concat([items, fresh], how="diagonal_relaxed"), notes


def _add_users(users: pl.DataFrame, fresh: pl.DataFrame) -> pl.DataFrame:
    """The users with the new ones behind them, of whom no text is known."""
    known = users["user"].to_list()
    names = fresh["user"].unique(maintain_order=True)
    more = pl.DataFrame({"user": names.filter(~names.is_in(known))})
    more = more.with_columns(pl.lit("").alias("text"))
    return pl.concat([users, more], how="diagonal_relaxed")


def _fit_columns(
    before: pl.DataFrame, fresh: pl.DataFrame, run: RunConfig, newer: NewerEvents
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both with the columns that every event must have.

    Raises:
        DataError: The run needs one that the newer events lack.
    """
    for name in ("impression", "basket"):
        if name in before.columns and name not in fresh.columns:
            raise DataError(f"{newer.file} has no column '{name}', which the run's events have.")
    objective = run.objective
    rated = run.data.positive_from is not None or run.data.targets == "labelled"
    rated = rated or (objective is not None and objective.reads_labels)
    if "rating" in before.columns and "rating" not in fresh.columns:
        if rated:
            raise DataError(
                f"{newer.file}: the run learns from ratings; name their column by rating=COLUMN."
            )
        before = before.drop("rating")
    if "weight" in before.columns and "weight" not in fresh.columns:
        fresh = fresh.with_columns(pl.lit(1.0).alias("weight"))
    extra = [name for name in fresh.columns if name not in before.columns]
    return before.drop(SPLIT, strict=False), fresh.drop(*extra).drop(SPLIT, strict=False)


def _cut(
    times: NDArray[np.int64], newer: NDArray[np.int64], val: float, test: float
) -> NDArray[np.int8]:
    """(N,) parts by two moments, which are quantiles of the newer events' times.

    Raises:
        DataError: All of them are of one moment.
    """
    ranked = np.sort(newer)
    ends = [
        min(int(round(len(ranked) * (1 - part), 6)), len(ranked) - 1) for part in (val + test, test)
    ]
    val_at, test_at = (ranked[end] for end in ends)
    if val_at == test_at:
        raise DataError(
            f"the {len(newer)} newer events cannot be cut into a part that validates and one that "
            "tests, since too many are of one moment; wait for more."
        )
    roles: NDArray[np.int8] = (times >= val_at).astype(np.int8) + (times >= test_at).astype(np.int8)
    return roles


def _restrict(
    merged: pl.DataFrame, roles: NDArray[np.int8], trained: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """(N,) the parts in which only what an older run was trained on trains.

    An event after one of the same user that does not train cannot train either: of users whose
    events came late, a few less train.
    """
    out = np.where(roles == TEST, TEST, np.where(trained, TRAIN, VAL)).astype(np.int8)
    frame = merged.select("user", "time").with_columns(
        pl.Series("role", out), pl.int_range(pl.len()).alias("row")
    )
    frame = frame.sort("time", "row").with_columns(pl.col("role").cum_max().over("user"))
    return frame.sort("row")["role"].to_numpy().astype(np.int8)


def _make_tables(
    merged: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    roles: Sequence[int] | NDArray[np.int8],
    data: DataOptions,
    where: str,
) -> Tables:
    """The tables with their parts, checked, with the run's rule on repeats."""
    parts = pl.Series(SPLIT, [PARTS[int(role)] for role in roles], dtype=pl.String)
    tables = check_tables(Tables(merged.with_columns(parts), items, users), where)
    return filter_tables(tables, repeats=data.repeats, min_rating=data.min_rating)
