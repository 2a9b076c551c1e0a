"""Which rows a query is about, and what can be had; nothing here loads torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys import printable
from recsys.config.compose import RunConfig
from recsys.data.columns.times import parse_times
from recsys.data.splits.availability import AvailabilityWindows
from recsys.data.tables import IdMap, Tables
from recsys.errors import ConfigError, DataError, UnknownIdError
from recsys.trained.queries import BECAUSE, Query
from recsys.trained.where import find_rows_outside

SCHEMA = {
    "query": pl.String,
    "rank": pl.Int64,
    "item": pl.String,
    "score": pl.Float64,
    "title": pl.String,
}


class RowFinder:
    """Finds the rows of what is asked for; each table of ids is read once.

    Args:
        tables: Whose rows.
    """

    def __init__(self, tables: Tables) -> None:
        self._users = IdMap(tables.users["user"].to_list(), "user")
        self._items = IdMap(tables.items["item"].to_list(), "item")

    @property
    def items(self) -> tuple[str, ...]:
        """Ids of the items by catalog row."""
        return self._items.ids

    def find_rows(self, query: Query) -> tuple[int, list[int]]:
        """Row of the user who is asked for, -1 for none, and rows of the history that is given.

        Raises:
            UnknownIdError: An id is unknown.
        """
        if query.user is not None:
            return self._users.get_row(query.user), []
        if query.history is not None:
            return -1, self._items.get_rows(list(query.history)).tolist()
        return -1, []


def parse_moment(moment: str) -> int:
    """A moment in milliseconds since 1970.

    Raises:
        DataError: It is no time.
    """
    if moment == "now":
        return round(time.time() * 1000)
    return int(parse_times(pl.Series("at", [moment]), "at=")[0])


def describe_sample(run: RunConfig, query: Query) -> str:
    """A sentence on the part of the data that the run keeps, where an unknown id may be left out.

    It begins with a blank; empty where everything is kept.
    """
    what = "user" if query.user is not None else "item"
    most = run.data.max_users if what == "user" else run.data.max_items
    if most is None:
        return ""
    return f" The run keeps a part of the {what}s (data.max_{what}s={most}); ask for one of them."


class ClosedItems:
    """Which items cannot be had at a moment, or are not asked for; asked often of the same items.

    Args:
        items: As `Tables.items`.

    Attributes:
        items: As given.
    """

    _MOST = 16  # expressions whose rows are kept

    def __init__(self, items: pl.DataFrame) -> None:
        self.items = items
        self._windows = AvailabilityWindows.from_items(items)
        self._outside: dict[str, NDArray[np.int64]] = {}

    def find(self, at: str, moment: int, where: str | None = None) -> NDArray[np.int64]:
        """(S,) catalog rows of the items, of which one may stand there twice.

        Args:
            at: The moment as it was given, for a message.
            moment: It, in milliseconds since 1970.
            where: An expression that holds for what is asked for, or None.

        Raises:
            ConfigError: It is no such expression.
            DataError: Nothing can be had then.
        """
        outside = np.empty(0, dtype=np.int64) if where is None else self._find_outside(where)
        if self._windows is None:
            return outside
        closed = self._windows.list_unavailable(moment)
        if len(closed) == len(self.items):
            raise DataError(
                f"no item can be had at={at}: each is before its available_from or past its "
                "available_until; give at= a moment within them, such as at=2024-05-01T12:00."
            )
        return np.concatenate([closed, outside])

    def _find_outside(self, where: str) -> NDArray[np.int64]:
        """(S,) rows for which an expression does not hold; of the latest ones they are known."""
        rows = self._outside.pop(where, None)
        if rows is None:
            rows = find_rows_outside(self.items, where)
        self._outside[where] = rows
        if len(self._outside) > self._MOST:
            del self._outside[next(iter(self._outside))]
        return rows


def make_frame(
    queries: Sequence[Query],
    chosen: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
    ids: Sequence[str],
    titles: Sequence[str],
    because: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Recommendations as a table, in one piece: a frame a query takes longer than to rank it.

    Args:
        queries: What was asked.
        chosen: Catalog rows and scores of the items of each, the best first.
        ids: Of all items by catalog row.
        titles: Their texts.
        because: What speaks for each of the items, one query after the other; None: no column.
    """
    rows = [row for own, _ in chosen for row in own.tolist()]
    pairs = list(zip(queries, (len(own) for own, _ in chosen), strict=True))
    frame = pl.DataFrame(
        {
            "query": [query.label for query, size in pairs for _ in range(size)],
            "rank": [rank for _, size in pairs for rank in range(1, size + 1)],
            "item": [ids[row] for row in rows],
            "score": [score for _, scores in chosen for score in scores.tolist()],
            "title": [titles[row] for row in rows],
        },
        schema=SCHEMA,
    )
    if because is None:
        return frame
    return frame.with_columns(pl.Series(BECAUSE, because, dtype=pl.String))


def check_columns(items: pl.DataFrame, columns: Sequence[str]) -> None:
    """Raises where further columns of items are asked for that they have not.

    Args:
        items: As `Tables.items`.
        columns: Their names.

    Raises:
        ConfigError: The items have no such column, it is there already, or asked for twice.
    """
    known = [each for each in items.columns if each not in (*SCHEMA, BECAUSE)]
    for place, name in enumerate(columns):
        if name not in known:
            raise ConfigError(
                f"the items have no further column '{name}' (there are: {', '.join(known)})."
            )
        if name in columns[:place]:
            raise ConfigError(f"columns names '{name}' twice; once is enough.")


def add_columns(rows: pl.DataFrame, items: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Recommendations with further columns of their items.

    Args:
        rows: With `item`.
        items: As `Tables.items`.
        columns: Their names, as `check_columns` takes them.
    """
    if not columns:
        return rows
    own = items.select(pl.col("item").cast(pl.String), *columns)
    return rows.join(own, on="item", how="left", maintain_order="left")


def check_ids(ids: RowFinder, queries: Iterable[Query], describe: Callable[[Query], str]) -> None:
    """Raises an error for an unknown id, and says where a part of the data is kept.

    Args:
        ids: Finds rows.
        queries: Who or what is asked for.
        describe: A sentence on that part, which begins with a blank.

    Raises:
        UnknownIdError: An id is unknown.
    """
    for query in queries:
        try:
            ids.find_rows(query)
        except UnknownIdError as error:
            raise error.add(describe(query)) from None


def print_note(note: str) -> None:
    """Prints a sentence on stderr."""
    print(printable.escape_line(f"note: {note}"), file=sys.stderr)
