"""Who is asked for in bulk: every user of the data, or those of a file."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.id_lookup import IdLookup
from recsys.data.readers.tabular import parse_ids
from recsys.data.tables import IdMap, Tables
from recsys.errors import DataError
from recsys.trained.bulk.user_files import HISTORY, USER, open_rows
from recsys.trained.queries import Query

Ints = NDArray[np.int64]
Unknown = Literal["error", "skip"]
_PIECE = 1 << 16  # rows of a file that are looked up at a time


@dataclass(frozen=True)
class QueryBlock:
    """Some queries.

    Attributes:
        labels: (Q,) what each is called in the lists.
        users: (Q,) rows of users; None where histories are given.
        histories: For each query, catalog rows, oldest first; None where users are given.
    """

    labels: pl.Series
    users: Ints | None
    histories: list[Ints] | None

    def __len__(self) -> int:
        return len(self.labels)

    def slice(self, start: int, stop: int) -> QueryBlock:
        """The queries from one number to before another."""
        return QueryBlock(
            self.labels[start:stop],
            None if self.users is None else self.users[start:stop],
            None if self.histories is None else self.histories[start:stop],
        )


class QuerySource(Protocol):
    """Queries by their numbers."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def count_left_out(self, start: int, stop: int) -> int:
        """How many of those from one number to before another are left out."""
        ...

    def read(self, start: int, stop: int) -> QueryBlock:
        """Those from one number to before another, but for what is left out."""
        ...


class EveryUser:
    """All users of the data, in their order.

    Args:
        tables: The data.

    Raises:
        DataError: It has no users.
    """

    def __init__(self, tables: Tables) -> None:
        self._labels = tables.users["user"].cast(pl.String)
        if not len(self._labels):
            raise DataError(
                "there are no users to ask for: a bundle that was written without them answers "
                "histories; give users=FILE with a column 'history'."
            )

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._labels)

    def count_left_out(self, start: int, stop: int) -> int:
        """None is."""
        return 0

    def read(self, start: int, stop: int) -> QueryBlock:
        """Those from one number to before another."""
        users = np.arange(start, min(stop, self.count), dtype=np.int64)
        return QueryBlock(self._labels[start:stop], users, None)


@dataclass
class _LeftOut:
    """Ids of a file that are left out.

    Attributes:
        count: How many.
        first: The first of them, with its row.
    """

    count: int = 0
    first: str = ""

    def add(self, count: int, name: str, row: int) -> None:
        """Counts some more, of which the first one is in a row of the file, from 1."""
        self.count, self.first = self.count + count, self.first or f"'{name}' in row {row}"

    def describe(self, one: str, many: str) -> str:
        """A note, empty where there is none: what one does of them, and what several do."""
        if not self.count:
            return ""
        if self.count == 1:
            return f"1 {one} and is left out, {self.first}"
        return f"{self.count:,} {many} and are left out, the first is {self.first}"


class QueryFile:
    """The rows of a file with a column `user`, a column `history`, or both.

    With `user` alone they are users of the data. With `history`, ids of items with commas between
    them (a list in Parquet and JSON lines), they are people of whom nothing else is known, and
    `user` is what they are called. A few rows are in memory at a time.

    A user who is named twice is asked for once, by the first row. People whose histories are given
    may be called the same: each row is someone of its own.

    Args:
        path: .csv, .tsv, .jsonl or .parquet, the first three also as .gz.
        copy: Where its columns are written as Parquet, where it is another file.
        unknown: Whether an unknown id raises an error, or is left out: a user with the whole row,
            an item from its history.

    Raises:
        DataError: The file cannot be read, or has none of the columns.
    """

    def __init__(self, path: Path, copy: Path, unknown: Unknown) -> None:
        self.path, self._unknown = path, unknown
        self._rows = open_rows(path, copy)
        names = self._rows.collect_schema().names()
        if HISTORY not in names and USER not in names:
            raise DataError(
                f"{path} has no column 'user' and no column 'history' (there are: "
                f"{', '.join(names)}); name the column of ids 'user'."
            )
        self._kind = "user" if HISTORY not in names else "item"
        self._named = USER in names
        self.count = int(self._rows.select(pl.len()).collect().item())
        if not self.count:
            raise DataError(f"{path} has no rows; name users in it, or give users=all.")
        self._lookup: IdLookup | None = None
        self._left_out: list[int] = []

    def look_up(self, tables: Tables, describe: Callable[[Query], str]) -> list[str]:
        """Looks all ids of the file up in the data.

        Args:
            tables: The data.
            describe: A sentence on the part of the data that is kept, for an unknown id.

        Returns:
            Notes on what is left out.

        Raises:
            DataError: An id is missing, or is unknown and is not to be skipped, or histories are
                written in two ways.
        """
        ids = (tables.users["user"] if self._kind == "user" else tables.items["item"]).cast(
            pl.String
        )
        self._lookup = IdLookup(ids)
        missing, again = _LeftOut(), _LeftOut()
        seen = np.zeros(len(ids), dtype=np.bool_)
        for start in range(0, self.count, _PIECE):
            names, rows = self._read_ids(start, start + _PIECE)
            places = self._lookup.find_rows(names).astype(np.int64)
            (unknown,) = np.nonzero(places < 0)
            if len(unknown):
                self._check_forms(start, rows[unknown])
                name, row = str(names[int(unknown[0])]), start + int(rows[unknown[0]]) + 1
                if self._unknown == "error":
                    known = IdMap(ids.to_list(), self._kind)
                    raise self._describe_unknown(known, name, row, describe)
                missing.add(len(unknown), name, row)
            if self._kind == "user":
                repeated = _find_repeated(places, seen)
                if len(repeated):
                    first = int(repeated[0])
                    again.add(len(repeated), str(names[first]), start + first + 1)
                self._left_out += np.sort(start + np.concatenate([unknown, repeated])).tolist()
        one, many = ("row names", "rows name") if self._kind == "user" else ("id names", "ids name")
        notes = (
            missing.describe(
                f"{one} no {self._kind} of the data", f"{many} no {self._kind} of the data"
            ),
            again.describe("row names a user again", "rows name a user again"),
        )
        return [f"{self.path}: {note}" for note in notes if note]

    def _check_forms(self, start: int, rows: Ints) -> None:
        """Raises where a list is read as a text, as it is where other rows of a file have texts.

        Args:
            start: Of the rows.
            rows: Those that have ids which no item has, from `start`.

        Raises:
            DataError: A history is such a list.
        """
        if self._kind == "user" or ".jsonl" not in self.path.suffixes:
            return
        column = self._collect(start, start + _PIECE)[HISTORY]
        if column.dtype != pl.String:
            return
        for row in np.unique(rows).tolist():
            if _is_list(str(column[row])):
                raise DataError(
                    f"{self.path}, row {start + row + 1}: this history is a list, and those of "
                    "other rows are texts; write all in one form, as lists or as texts with "
                    "commas between the ids."
                )

    def _describe_unknown(
        self, ids: IdMap, name: str, row: int, describe: Callable[[Query], str]
    ) -> DataError:
        """The error of an unknown id."""
        try:
            ids.get_row(name)
        except DataError as error:
            part = describe(Query(user=name) if self._kind == "user" else Query(history=(name,)))
            return DataError(
                f"{self.path}, row {row}: {error}{part} Mend it, or leave what is unknown out with "
                "unknown=skip."
            )
        raise AssertionError(f"{name} is known")

    def count_left_out(self, start: int, stop: int) -> int:
        """How many rows from one number to before another name nobody, or someone again."""
        return bisect_left(self._left_out, stop) - bisect_left(self._left_out, start)

    def read(self, start: int, stop: int) -> QueryBlock:
        """The rows from one number to before another, but for what is left out."""
        assert self._lookup is not None, "ids are looked up before they are asked for"
        names, rows = self._read_ids(start, stop)
        places = self._lookup.find_rows(names).astype(np.int64)
        if self._kind == "user":
            asked = np.ones(len(names), dtype=np.bool_)
            first, end = (bisect_left(self._left_out, row) for row in (start, stop))
            asked[np.asarray(self._left_out[first:end], dtype=np.int64) - start] = False
            return QueryBlock(names.filter(pl.Series(asked)), places[asked], None)
        known = places >= 0
        labels = self._read_labels(start, stop)
        ends = np.searchsorted(rows[known], np.arange(1, len(labels)))
        return QueryBlock(labels, None, np.split(places[known], ends))

    def _read_labels(self, start: int, stop: int) -> pl.Series:
        """(Q,) what people of whom a history is given are called."""
        frame = self._collect(start, stop)
        if self._named:
            return self._check_names(frame[USER], start)
        return self._split_histories(frame[HISTORY], start).list.join(",").rename(USER)

    def _read_ids(self, start: int, stop: int) -> tuple[pl.Series, Ints]:
        """(N,) ids of users, or of all items of histories, and (N,) the row of each from `start`.

        Raises:
            DataError: One is missing.
        """
        frame = self._collect(start, stop)
        if self._kind == "user":
            names = self._check_names(frame[USER], start)
            return names, np.arange(len(names), dtype=np.int64)
        histories = self._split_histories(frame[HISTORY], start)
        sizes = histories.list.len().to_numpy()
        rows = np.repeat(np.arange(len(histories), dtype=np.int64), sizes)
        return histories.filter(pl.Series(sizes > 0)).explode(), rows

    def _collect(self, start: int, stop: int) -> pl.DataFrame:
        frame: pl.DataFrame = self._rows.slice(start, stop - start).collect()
        return frame

    def _check_names(self, column: pl.Series, start: int) -> pl.Series:
        """Ids of users as text.

        Raises:
            DataError: One is empty, or they are no ids.
        """
        names = parse_ids(column, str(self.path))
        (empty,) = np.nonzero((names.is_null() | (names == "")).to_numpy())
        if len(empty):
            raise DataError(
                f"{self.path}, row {start + int(empty[0]) + 1}: the user has no id; fill it in or "
                "remove the row."
            )
        return names

    def _split_histories(self, column: pl.Series, start: int) -> pl.Series:
        """Lists of ids of items; an empty one of who had nothing.

        Raises:
            DataError: They are neither texts nor lists of ids.
        """
        if isinstance(column.dtype, pl.List):
            inner = pl.Series(dtype=column.dtype.inner).dtype
            if not (inner in (pl.Null, pl.String) or inner.is_integer()):
                raise DataError(
                    f"{self.path}: ids in column 'history' are {column.dtype}; save them as lists "
                    "of text."
                )
            lists = column.cast(pl.List(pl.String))
        else:
            lists = parse_ids(column, str(self.path)).str.split(",")
        stripped = lists.list.eval(pl.element().str.strip_chars())
        return stripped.list.eval(pl.element().filter(pl.element() != "")).fill_null([])


def _find_repeated(places: Ints, seen: NDArray[np.bool_]) -> Ints:
    """Where rows of users stand that stood before.

    Args:
        places: (N,) rows of users; below 0: unknown.
        seen: (U,) whether each stood in an earlier piece; the users of this one are added.
    """
    known = np.flatnonzero(places >= 0)
    users = places[known]
    fresh = np.zeros(len(users), dtype=np.bool_)
    fresh[np.unique(users, return_index=True)[1]] = True
    repeated: Ints = known[~fresh | seen[users]].astype(np.int64)
    seen[users] = True
    return repeated


def _is_list(text: str) -> bool:
    """Whether a text is a list as JSON has it."""
    with suppress(ValueError):
        return isinstance(json.loads(text), list)
    return False
