"""Any tables of one's own: CSV, TSV, JSONL or Parquet files with named columns.

With `path`, the canonical tables that `python -m recsys.data ... output=FOLDER` wrote, as they are,
with the split that they were written with, unless another one is asked for.
Items may have `available_from` and `available_until`: unix seconds, milliseconds or ISO dates.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path

import polars as pl

from recsys.data import reading, written
from recsys.data.splits import Method
from recsys.data.tables import Tables, check, parse_times, windows
from recsys.data.text import fill
from recsys.errors import ConfigError, DataError


@dataclass
class Config:
    """The files and which of their columns is what."""

    path: str = field(
        default="",
        metadata={
            "help": "Folder with canonical tables (interactions, items, users as .parquet); it "
            "takes the place of all other keys."
        },
    )
    interactions: str = field(default="", metadata={"help": "File with a row per interaction."})
    items: str = field(default="", metadata={"help": "File with a row per item."})
    users: str = field(default="", metadata={"help": "File with a row per user; empty: none."})
    user: str = field(default="user", metadata={"help": "Column of the user id, in both files."})
    item: str = field(default="item", metadata={"help": "Column of the item id, in both files."})
    time: str = field(default="time", metadata={"help": "Column of the time; empty: none."})
    rating: str = field(default="", metadata={"help": "Column of the rating; empty: none."})
    weight: str = field(default="", metadata={"help": "Column of the weight; empty: none."})
    item_text: str = field(
        default="{title}", metadata={"help": "Template of an item's text over its columns."}
    )
    user_text: str = field(
        default="", metadata={"help": "Template of a user's text over the columns of users."}
    )

    @property
    def default_split(self) -> Method:
        """The split that a folder was written with; else `time`."""
        return (written.read(Path(self.path)).split if self.path else None) or "time"


def _take(frame: pl.DataFrame, wanted: dict[str, str], path: str) -> pl.DataFrame:
    """The frame with the wanted columns first and under our names.

    Raises:
        ConfigError: A column is not there, or another one already has our name.
    """
    for ours, theirs in wanted.items():
        if theirs not in frame.columns:
            near = difflib.get_close_matches(theirs, frame.columns, n=1, cutoff=0.0)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(
                f"{path} has no column '{theirs}' (data.source.{ours}); {hint}"
                f"Known columns: {', '.join(frame.columns)}."
            )
    if len(set(wanted.values())) < len(wanted):
        raise ConfigError(f"{path}: one column is named for two purposes: {wanted}.")
    # A further column that happens to carry one of our names is put aside under a longer one.
    aside = {n: f"{n}_" for n in frame.columns if n in wanted and n not in wanted.values()}
    frame = frame.rename(aside).rename({theirs: ours for ours, theirs in wanted.items()})
    return frame.select(*wanted, pl.exclude(*wanted))


def _with_ids(frame: pl.DataFrame, names: tuple[str, ...], path: str) -> pl.DataFrame:
    return frame.with_columns(reading.ids(frame[name], path).alias(name) for name in names)


def _canonical(cfg: Config) -> Tables:
    """The three tables of a folder, unchanged.

    Raises:
        ConfigError: Another key is set, which would be ignored.
    """
    odd = [f.name for f in fields(cfg) if f.name != "path" and getattr(cfg, f.name) != f.default]
    if odd:
        raise ConfigError(
            f"data.source.path takes canonical tables as they are; leave out {', '.join(odd)}."
        )
    folder = reading.folder(cfg.path, "the tables that python -m recsys.data output=... wrote")
    events, items, users = (
        reading.table(reading.find(folder, f"{name}.parquet"))
        for name in ("interactions", "items", "users")
    )
    used = written.read(folder)
    notes: tuple[str, ...] = ()
    if used.keys:
        notes = (f"tables: {folder} was described with {' '.join(used.words())}; repeat them.",)
    return check(Tables(events, items, users, notes), str(folder))


def load(cfg: Config) -> Tables:
    """Reads the files; ids stay text as written, further columns are kept.

    Raises:
        ConfigError: A column or template does not fit the files.
        DataError: A file is missing or damaged, or the tables do not fit each other.
    """
    if cfg.path:
        return _canonical(cfg)
    if not cfg.interactions or not cfg.items:
        raise DataError("Set data.source.interactions and data.source.items to the two files.")
    optional = {"time": cfg.time, "rating": cfg.rating, "weight": cfg.weight}
    wanted = {"user": cfg.user, "item": cfg.item} | {k: v for k, v in optional.items() if v}
    numeric = [name for name in (cfg.time, cfg.rating, cfg.weight) if name]
    frame = reading.table(Path(cfg.interactions), numeric)
    # A column that merely has one of our names must not be taken for what it was not declared as.
    frame = frame.rename(
        {n: f"{n}_" for n in optional if n in frame.columns and n not in wanted.values()}
    )
    events = _with_ids(_take(frame, wanted, cfg.interactions), ("user", "item"), cfg.interactions)
    if cfg.time:
        times = parse_times(events["time"], cfg.interactions).alias("time")
        events = events.with_columns(times)
    for name in (n for n in ("rating", "weight") if optional[n]):
        events = events.with_columns(reading.numbers(events[name], cfg.interactions).alias(name))
    items = _take(reading.table(Path(cfg.items)), {"item": cfg.item}, cfg.items)
    items = windows(_with_ids(items, ("item",), cfg.items), cfg.items)
    items = items.with_columns(fill(items, cfg.item_text))
    if not cfg.users:
        if cfg.user_text:
            raise ConfigError(
                "data.source.user_text needs data.source.users, the file with its columns."
            )
        return check(Tables(events, items, reading.users_of(events)), cfg.interactions)
    users = _take(reading.table(Path(cfg.users)), {"user": cfg.user}, cfg.users)
    users = _with_ids(users, ("user",), cfg.users)
    users = users.with_columns(fill(users, cfg.user_text))
    return check(Tables(events, items, users), cfg.interactions)
