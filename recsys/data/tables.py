"""The three tables of a data set, how they are checked, named and cut down for a quick look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.id_lookup import IdLookup
from recsys.data.columns.times import EVER, parse_times
from recsys.errors import DataError, UnknownIdError

_INTERACTION_TYPES = {
    "user": pl.String,
    "item": pl.String,
    "time": pl.Int64,
    "rating": pl.Float64,
    "weight": pl.Float64,
}
_OPTIONAL = {"time", "rating", "weight"}
WINDOWS = ("available_from", "available_until")
_PIECE = 1_000_000  # values hashed at a time
_HEAVIEST = 1e12  # weight of an event: the sum of the squares of many of them is a float32


@dataclass(frozen=True)
class Tables:
    """A data set with the user's own ids, which are text throughout.

    Attributes:
        interactions: user, item and, where known, time (Int64, ms since 1970 UTC), rating and
            weight (Float64), then any further columns; in file order.
        items: item, text, then any further columns; row order is the catalog's order. Where an
            item could be had for some time only, `available_from` and `available_until` (Int64,
            ms since 1970 UTC, empty: no bound) say when; the second moment no longer counts.
        users: user, text (may be empty), then any further columns.
        notes: Sentences for the log: what was removed or made up on the way here.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    notes: tuple[str, ...] = ()


class IdMap:
    """Ids to row numbers and back.

    Args:
        ids: The ids in row order.
        kind: What they name ("item", "user"), for messages.
    """

    def __init__(self, ids: Sequence[str], kind: str) -> None:
        self.ids: tuple[str, ...] = tuple(ids)
        self.kind = kind
        self._rows = {name: row for row, name in enumerate(self.ids)}
        if len(self._rows) != len(self.ids):
            raise DataError(f"The {kind} ids are not unique; remove the duplicates.")

    def __len__(self) -> int:
        return len(self.ids)

    def get_row(self, name: str) -> int:
        """Row of one id.

        Raises:
            UnknownIdError: The id is unknown; the message names the nearest one of ids that are
                words.
        """
        if name not in self._rows:
            raise UnknownIdError(self.kind, name, self.ids)
        return self._rows[name]

    def get_rows(self, names: Iterable[str] | pl.Series) -> NDArray[np.int64]:
        """(N,) rows of N ids, of a column without a Python object an id; raises as `get_row`."""
        if not isinstance(names, pl.Series):
            return np.array([self.get_row(name) for name in names], dtype=np.int64)
        found = IdLookup(pl.Series(self.ids, dtype=pl.String)).find_rows(names.cast(pl.String))
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            self.get_row(str(names[int(unknown[0])]))
        return found.astype(np.int64)

    def get_names(self, rows: Iterable[int]) -> list[str]:
        """Ids of rows, which must lie in 0 .. len - 1.

        Raises:
            DataError: A row lies outside.
        """
        out = []
        for row in rows:
            if not 0 <= row < len(self.ids):
                raise DataError(f"No {self.kind} has the row {row}; rows go to {len(self) - 1}.")
            out.append(self.ids[row])
        return out


def _check_columns(frame: pl.DataFrame, types: dict[str, type[pl.DataType]], what: str) -> None:
    """Raises DataError where a column is missing, of another type, or has an empty place."""
    for name, kind in types.items():
        if name not in frame.columns:
            if name in _OPTIONAL:
                continue
            raise DataError(
                f"{what} have no column '{name}' (there are: {', '.join(frame.columns)}); "
                "name the column that holds it."
            )
        column = frame[name]
        if column.dtype != kind:
            raise DataError(f"{what}: column '{name}' is {column.dtype}, it must be {kind()}.")
        check_values(column, what, blank=name == "text")


def check_values(column: pl.Series, what: str, blank: bool = False) -> None:
    """Raises an error for a column with an empty place.

    Args:
        column: Of texts or numbers, with its name.
        what: The table, for messages.
        blank: Whether a text may be blank.

    Raises:
        DataError: A value is missing, blank or not finite; rows count from 1.
    """
    bad = column.is_null()
    if column.dtype == pl.String and not blank:
        bad = bad | (column.str.strip_chars() == "").fill_null(True)
    elif column.dtype == pl.Float64:
        bad = bad | ~column.is_finite().fill_null(False)
    if bad.any():
        raise DataError(
            f"{what}: row {_find_first(bad) + 1} has no usable value in column '{column.name}'; "
            "fill it in or remove the row."
        )


def _find_first(mask: pl.Series) -> int:
    """Number of the first true row of a mask that has one."""
    return int(mask.fill_null(False).arg_true()[0])


def _check_unique(frame: pl.DataFrame, key: str, what: str) -> None:
    twice = ~frame[key].is_first_distinct()
    if twice.any():
        row = _find_first(twice)
        raise DataError(
            f"{what}: the id '{frame[key][row]}' appears again in row {row + 1}; keep one of them."
        )


def check_tables(
    tables: Tables,
    where: str,
    interactions: str = "",
    items_file: str = "",
    users_file: str = "",
    more: str = "",
) -> Tables:
    """Returns the tables as they are if all rooms can rely on them.

    Args:
        tables: What a source read.
        where: The file, folder or source to name in messages.
        interactions: The file of interactions, where it is another.
        items_file: That of items, where it is another.
        users_file: That of users, where it is another.
        more: What else may be done about an item without a text, after a comma.

    Raises:
        DataError: A column is missing or of a wrong type, an id is empty, given twice or unknown,
            an item has no text, or nothing is left. Row numbers count data rows from 1.
    """
    events, items, users = tables.interactions, tables.items, tables.users
    events_at = interactions or where
    items_at, users_at = items_file or where, users_file or where
    check_interactions(events, events_at)
    _check_columns(items, {"item": pl.String, "text": pl.String}, f"{items_at}: items")
    _check_columns(users, {"user": pl.String, "text": pl.String}, f"{users_at}: users")
    for name, frame, at in (
        ("items", items, items_at),  # without any, no interaction may be left either
        ("interactions", events, events_at),
        ("users", users, users_at),
    ):
        if frame.is_empty():
            raise DataError(f"{at}: no {name} are left; check the file and the limits set.")
    _check_unique(items, "item", f"{items_at}: items")
    _check_unique(users, "user", f"{users_at}: users")
    _check_texts(items, f"{items_at}: items", more)
    check_windows(items, f"{items_at}: items")
    for key, known in (("item", items), ("user", users)):
        missing = ~events[key].is_in(known[key].to_list())
        if missing.any():
            row = _find_first(missing)
            raise DataError(
                f"{events_at}: interactions: row {row + 1} (user "
                f"'{events['user'][row]}', item '{events['item'][row]}') names an unknown {key}; "
                f"add it to the {key}s, or remove the row."
            )
    return tables


def check_items(items: pl.DataFrame, where: str) -> None:
    """What `check_tables` says of items alone; those without a text go by their ids.

    Raises:
        DataError: A column is missing or of a wrong type, an id is empty or given twice, or an
            item has no text; rows count from 1.
    """
    _check_columns(items, {"item": pl.String, "text": pl.String}, where)
    _check_unique(items, "item", where)
    _check_texts(items, where, numbered=False)


def _check_texts(items: pl.DataFrame, where: str, more: str = "", numbered: bool = True) -> None:
    """Raises DataError where an item has no text."""
    empty = items["text"].str.strip_chars() == ""
    if empty.any():
        raise DataError(
            f"{where}: {_name_item(items, empty, numbered)} has an empty text; "
            f"give it one, or another text template{more}."
        )


def _name_item(items: pl.DataFrame, mask: pl.Series, numbered: bool) -> str:
    """The first item of a mask, with its row where that is one that someone can look up."""
    row = _find_first(mask)
    return f"'{items['item'][row]}'" + (f" in row {row + 1}" if numbered else "")


def check_interactions(events: pl.DataFrame, where: str) -> None:
    """What `check_tables` says of interactions alone; until any is left out, rows are the file's.

    Raises:
        DataError: A column is missing or of a wrong type, a place is empty, or a weight below 0.
    """
    _check_columns(events, dict(_INTERACTION_TYPES), f"{where}: interactions")
    if "weight" in events.columns:
        check_weights(events["weight"], f"{where}: interactions")


def check_weights(weights: pl.Series, where: str) -> None:
    """Raises an error for weights of events that no sum can hold, and those of which none counts.

    Raises:
        DataError: One is below 0 or above 1e12, or all are 0; rows count from 1.
    """
    odd = (weights < 0) | (weights > _HEAVIEST)
    if odd.any():
        row = _find_first(odd)
        raise DataError(
            f"{where}: row {row + 1} has the weight {weights[row]:g}; give one from 0 to "
            f"{_HEAVIEST:g}, or remove the row."
        )
    if len(weights) and (weights == 0).all():
        raise DataError(f"{where}: every weight is 0, so that no event counts; give some above 0.")


def check_windows(items: pl.DataFrame, where: str, numbered: bool = True) -> None:
    """Raises an error where the times that an item could be had are no times or out of order.

    Args:
        items: As `Tables.items`.
        where: Where they come from, for messages.
        numbered: Whether rows are named as well as ids.

    Raises:
        DataError: A column is no Int64, or an item ends before it begins; rows count from 1.
    """
    for name in (n for n in WINDOWS if n in items.columns):
        if items[name].dtype != pl.Int64:
            raise DataError(
                f"{where}: column '{name}' is {items[name].dtype}, it must be Int64 "
                "(milliseconds since 1970)."
            )
    if set(WINDOWS) <= set(items.columns):
        never = items[WINDOWS[0]] >= items[WINDOWS[1]]
        if never.any():
            raise DataError(
                f"{where}: {_name_item(items, never, numbered)} is available until a "
                "moment that is not after the one from which it is; mend one of them."
            )


def parse_windows(items: pl.DataFrame, where: str) -> pl.DataFrame:
    """The items with `available_from` and `available_until`, where there, as `Tables` has them.

    Raises:
        DataError: A value is no time.
    """
    for name in (n for n in WINDOWS if n in items.columns):
        column = items[name]
        if column.dtype == pl.String:
            column = column.replace("", None)
        at = column.is_not_null().arg_true()
        moments = pl.Series(name, [None] * len(column), dtype=pl.Int64)
        if len(at):
            moments = moments.scatter(at, parse_times(column.gather(at), where, EVER))
        items = items.with_columns(moments)
    return items


def _encode_column(column: pl.Series) -> Iterator[bytes]:
    """Length and bytes of a column, in pieces, that two different columns never share.

    An enumeration counts as the texts that it stands for.
    """
    number = column.dtype.is_numeric()
    if not (number or column.dtype in (pl.Boolean, pl.String, pl.Enum, pl.Categorical)):
        texts = [None if v is None else json.dumps(v, default=str) for v in column.to_list()]
        column = pl.Series(column.name, texts, dtype=pl.String)
    pieces = [column.slice(start, _PIECE) for start in range(0, len(column), _PIECE)]
    if number or column.dtype == pl.Boolean:
        width = 1 + column.clear().to_numpy().itemsize
        yield (width * len(column)).to_bytes(8, "little")
        for piece in pieces:
            yield piece.is_not_null().to_numpy().astype(np.uint8).tobytes()
        for piece in pieces:
            yield piece.fill_null(0 if number else False).to_numpy().tobytes()
        return
    # -1 keeps a missing value apart from an empty one; lengths keep "ab","c" apart from "a","bc".
    sizes = [piece.cast(pl.String).str.len_bytes() for piece in pieces]
    total = sum(8 * len(size) + int(size.cast(pl.Int64).sum()) for size in sizes)
    yield total.to_bytes(8, "little")
    for size in sizes:
        yield size.cast(pl.Int64).fill_null(-1).to_numpy().astype("<i8").tobytes()
    for piece in pieces:
        yield "".join(piece.cast(pl.String).str.join("").to_list()).encode()


def _update_digest(digest: hashlib._Hash, *names: str) -> None:
    for name in names:
        digest.update(len(name.encode()).to_bytes(8, "little"))
        digest.update(name.encode())


def compute_fingerprint(tables: Tables) -> str:
    """Sha256 (hex) of names, types and raw contents of all columns, in order.

    Every piece is preceded by its length, so that moving a boundary changes the result. It does
    not use Polars' hash, which differs between versions.
    """
    digest = hashlib.sha256()
    for name in ("interactions", "items", "users"):
        frame: pl.DataFrame = {
            "interactions": tables.interactions,
            "items": tables.items,
            "users": tables.users,
        }[name]
        _update_digest(digest, name, str(frame.shape))
        for column in frame.get_columns():
            text = column.dtype in (pl.Enum, pl.Categorical)
            _update_digest(digest, column.name, "String" if text else str(column.dtype))
            for piece in _encode_column(column):
                digest.update(piece)
    return digest.hexdigest()


def limit_tables(
    tables: Tables, max_users: int | None, max_items: int | None, seed: int, where: str = "limit"
) -> Tables:
    """A smaller data set for a quick look; its figures say nothing about the whole one.

    Users are drawn at random among those with interactions; items are the most used ones of the
    users drawn (equals in catalog order). None is no limit. All orders are kept.

    Raises:
        DataError: Nothing is left.
    """
    events, items, users = tables.interactions, tables.items, tables.users
    if max_users is not None:
        active = users.filter(pl.col("user").is_in(events["user"].unique().to_list()))["user"]
        count = min(max_users, len(active))
        drawn = np.random.default_rng(seed).choice(len(active), size=count, replace=False)
        kept = active.gather(np.sort(drawn)).to_list()
        events = events.filter(pl.col("user").is_in(kept))
        users = users.filter(pl.col("user").is_in(kept))
    if max_items is not None:
        uses = events["item"].value_counts(name="_uses")
        ranked = items.select("item").join(uses, on="item", how="left", maintain_order="left")
        order = np.argsort(-ranked["_uses"].fill_null(0).to_numpy().astype(np.int64), kind="stable")
        top = ranked["item"].gather(order[:max_items]).to_list()
        items = items.filter(pl.col("item").is_in(top))
        events = events.filter(pl.col("item").is_in(top))
    return check_tables(Tables(events, items, users, tables.notes), where)
