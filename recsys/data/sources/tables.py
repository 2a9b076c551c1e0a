"""Any tables of one's own: CSV, TSV, JSONL or Parquet files with named columns.

With `path`, the canonical tables that `python -m recsys.data ... output=FOLDER` wrote, as they are,
with the split that they were written with, unless another one is asked for.
Items may have `available_from` and `available_until`: unix seconds, milliseconds or ISO dates.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Self

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data import export
from recsys.data.columns.times import parse_times
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template, suggest_column
from recsys.data.tables import Tables, check_tables, check_values, parse_windows
from recsys.errors import ConfigError, DataError


@dataclass
class Config(SourceConfig):
    """The files and which of their columns is what."""

    path: str = option(
        "",
        "Folder with canonical tables (interactions, items, users as .parquet); it "
        "takes the place of all other keys.",
    )
    interactions: str = option("", "File with a row per interaction.")
    items: str = option("", "File with a row per item.")
    users: str = option("", "File with a row per user; empty: none.")
    user: str = option("user", "Column of the user id, in both files.")
    item: str = option("item", "Column of the item id, in both files.")
    items_id: str = option("", "Column of the item id in the items' file; empty: as item.")
    users_id: str = option("", "Column of the user id in the users' file; empty: as user.")
    time: str = option("time", "Column of the time; empty: none.")
    rating: str = option("", "Column of the rating; empty: none.")
    weight: str = option("", "Column of the weight; empty: none.")
    item_text: str = option("{title}", "Template of an item's text over its columns.")
    user_text: str = option("", "Template of a user's text over the columns of users.")
    unknown: Literal["refuse", "leave_out", "leave_out_items"] = option(
        "refuse",
        "Interactions with items that have no row or no text, and items that come "
        "twice: refuse, or leave out and say how many; with leave_out_items, users of whom "
        "nothing is left stay, without a history.",
    )
    separator: str = option(
        "", "Between the columns of text files; empty: a comma in .csv, a tab in .tsv."
    )
    encoding: str = option(
        "", "Of text files, as in latin-1; empty: UTF-8, or UTF-16 that begins with its mark."
    )
    quoting: tabular.Quoting = option(
        "auto",
        "Double quotes around values, one within a value twice (doubled) or after a "
        "backslash (escaped); none: quotes are text; auto: doubled in .csv, none elsewhere.",
    )

    @property
    def default_split(self) -> SplitMethod:
        """The split that a folder was written with; else `time`."""
        return (export.read_settings(Path(self.path)).split if self.path else None) or "time"

    @property
    def item_template(self) -> str | None:
        """None of canonical tables, whose texts are whole."""
        return None if self.path else self.item_text

    def leave_out_unknown(self) -> Self:
        """With `unknown=leave_out_items`, so that the users are those that a fit has read.

        Canonical tables are as they are, and so is what was left out for the fit already.
        """
        kept = self.path or self.unknown != "refuse"
        return self if kept else replace(self, unknown="leave_out_items")


def _select_columns(
    frame: pl.DataFrame, wanted: dict[str, tuple[str, str]], path: str
) -> pl.DataFrame:
    """The frame with the wanted columns first and under our names.

    Args:
        frame: Of a file.
        wanted: Our names, each with that of the file and the key that gives it.
        path: The file, for messages.

    Raises:
        ConfigError: A column is not there, or another one already has our name.
    """
    for theirs, key in wanted.values():
        if theirs not in frame.columns:
            raise ConfigError(_describe_missing(frame.columns, theirs, key, path))
    wanted_names = {ours: theirs for ours, (theirs, _) in wanted.items()}
    return _rename_columns(frame, wanted_names, path)


def _describe_missing(columns: list[str], name: str, key: str, path: str) -> str:
    """The error message for a column that a file lacks."""
    if len(columns) == 1:
        (head,) = columns
        other = next((sign for sign in (";", "\t", "|", "::", ",") if sign in head), None)
        if other is not None:
            shown = "'\\t'" if other == "\t" else f"'{other}'"
            # In double quotes for the shell; the single ones are for YAML, in which a sign such as
            # a bar or a comma is no text.
            return (
                f"{path} has one column, '{head[:60]}': if {shown} stands between its columns, set "
                f'"data.source.separator={shown}".'
            )
    keys = f"data.source.{key}"
    if key in ("item", "user"):
        keys += f", or data.source.{key}s_id where the {key}s' file has another name for it"
    return f"{path} has no column '{name}' ({keys}){suggest_column(name, columns)}"


def _rename_columns(frame: pl.DataFrame, wanted: dict[str, str], path: str) -> pl.DataFrame:
    if len(set(wanted.values())) < len(wanted):
        raise ConfigError(f"{path}: one column is named for two purposes: {wanted}.")
    # A further column that happens to carry one of our names is put aside under a longer one.
    aside = {n: f"{n}_" for n in frame.columns if n in wanted and n not in wanted.values()}
    frame = frame.rename(aside).rename({theirs: ours for ours, theirs in wanted.items()})
    return frame.select(*wanted, pl.exclude(*wanted))


def _parse_ids(
    frame: pl.DataFrame, wanted: dict[str, str], path: str, empty: bool = False
) -> pl.DataFrame:
    """The frame with ids as text; messages have the file's names of the columns.

    Args:
        frame: Of a file, under our names.
        wanted: Our names of the columns of ids, each with that of the file.
        path: The file, for messages.
        empty: Whether a place may be empty.

    Raises:
        DataError: A value is no id.
    """
    for ours, theirs in wanted.items():
        column = tabular.parse_ids(frame[ours].alias(theirs), path)
        if not empty:
            check_values(column, path)
        frame = frame.with_columns(column.alias(ours))
    return frame


def _read_canonical(cfg: Config) -> Tables:
    """The three tables of a folder, unchanged.

    Raises:
        ConfigError: Another key is set, which would be ignored.
    """
    odd = [f.name for f in fields(cfg) if f.name != "path" and getattr(cfg, f.name) != f.default]
    if odd:
        raise ConfigError(
            f"data.source.path takes canonical tables as they are; leave out {', '.join(odd)}."
        )
    folder = tabular.check_folder(
        cfg.path, "the tables that python -m recsys.data output=... wrote"
    )
    events, items, users = (
        tabular.read_table(tabular.find_file(folder, f"{name}.parquet"))
        for name in ("interactions", "items", "users")
    )
    used = export.read_settings(folder)
    notes: tuple[str, ...] = ()
    if used.keys:
        notes = (
            f"tables: {folder} was described with {' '.join(used.format_options())}; repeat them.",
        )
    return check_tables(Tables(events, items, users, notes), str(folder))


def load(cfg: Config) -> Tables:
    """Reads the files; ids stay text as written, further columns are kept.

    Raises:
        ConfigError: A column, template or encoding does not fit the files.
        DataError: A file is missing or damaged, or the tables do not fit each other.
    """
    if cfg.path:
        return _read_canonical(cfg)
    if not cfg.interactions or not cfg.items:
        raise DataError("Set data.source.interactions and data.source.items to the two files.")
    dialect = _make_dialect(cfg)
    events = _read_events(cfg, dialect)
    items_id = (cfg.items_id, "items_id") if cfg.items_id else (cfg.item, "item")
    items = _select_columns(
        tabular.read_table(Path(cfg.items), dialect=dialect), {"item": items_id}, cfg.items
    )
    leaves_out = cfg.unknown != "refuse"
    if leaves_out:
        items = items.filter(pl.col("item").is_not_null())
    items = parse_windows(_parse_ids(items, {"item": items_id[0]}, cfg.items), cfg.items)
    items = items.with_columns(fill_template(items, cfg.item_text))
    notes: tuple[str, ...] = ()
    named = events  # by all that there are, whoever has an item
    if leaves_out:
        events, items, notes = tabular.drop_undescribed(events, items, "tables", cfg.interactions)
    users = _read_users(cfg, dialect, named if cfg.unknown == "leave_out_items" else events)
    return check_tables(
        Tables(events, items, users, notes),
        cfg.interactions,
        items_file=cfg.items,
        users_file=cfg.users,
        more=", or leave out such items: data.source.unknown=leave_out",
    )


def _make_dialect(cfg: Config) -> tabular.Dialect:
    """How text files are read.

    Raises:
        ConfigError: The encoding is none of text.
    """
    try:
        if cfg.encoding:
            codecs.lookup(cfg.encoding)
            "".encode(cfg.encoding)
    except LookupError:
        raise ConfigError(
            f"data.source.encoding: '{cfg.encoding}' is no encoding of text; give one such as "
            "latin-1, cp1252, utf-16 or gb18030."
        ) from None
    separator = "\t" if cfg.separator == "\\t" else cfg.separator
    return tabular.Dialect(separator, cfg.encoding, cfg.quoting)


def _read_events(cfg: Config, dialect: tabular.Dialect) -> pl.DataFrame:
    """The interactions under our names; further columns are kept."""
    optional = {"time": cfg.time, "rating": cfg.rating, "weight": cfg.weight}
    wanted = {"user": cfg.user, "item": cfg.item} | {k: v for k, v in optional.items() if v}
    numeric = [name for name in (cfg.time, cfg.rating, cfg.weight) if name]
    frame = tabular.read_table(Path(cfg.interactions), numeric, dialect=dialect)
    # A column that merely has one of our names must not be taken for what it was not declared as.
    frame = frame.rename(
        {n: f"{n}_" for n in optional if n in frame.columns and n not in wanted.values()}
    )
    keyed = {ours: (theirs, ours) for ours, theirs in wanted.items()}
    frame = _select_columns(frame, keyed, cfg.interactions)
    events = _parse_ids(frame, {"user": cfg.user, "item": cfg.item}, cfg.interactions)
    if cfg.time:
        times = parse_times(events["time"].alias(cfg.time), cfg.interactions).alias("time")
        events = events.with_columns(times)
    for name in (n for n in ("rating", "weight") if optional[n]):
        column = events[name].alias(wanted[name])
        values = tabular.parse_numbers(column, cfg.interactions)
        check_values(values, cfg.interactions)
        events = events.with_columns(values.alias(name))
    return events


def _read_users(cfg: Config, dialect: tabular.Dialect, events: pl.DataFrame) -> pl.DataFrame:
    """The users with their texts; where unknown ones may be, those with interactions."""
    if not cfg.users:
        if cfg.user_text:
            raise ConfigError(
                "data.source.user_text needs data.source.users, the file with its columns."
            )
        return tabular.make_users(events)
    users_id = (cfg.users_id, "users_id") if cfg.users_id else (cfg.user, "user")
    users = _select_columns(
        tabular.read_table(Path(cfg.users), dialect=dialect), {"user": users_id}, cfg.users
    )
    # Where unknown users are left out, those of no event are, and one without an id has none.
    users = _parse_ids(users, {"user": users_id[0]}, cfg.users, cfg.unknown == "leave_out")
    users = users.with_columns(fill_template(users, cfg.user_text))
    if cfg.unknown == "leave_out":
        known = users.unique("user", keep="first", maintain_order=True)
        users = tabular.make_users(events).select("user")
        users = users.join(known, on="user", how="left", maintain_order="left")
        users = users.with_columns(pl.col("text").fill_null(""))
    return users
