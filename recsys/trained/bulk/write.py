"""Writes the lists of many users into a file: in parts, which a later start goes on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data.splits.availability import AvailabilityWindows
from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.runtime.progress import print_status, track
from recsys.trained.bulk.models import BulkModel, Rank, Setting
from recsys.trained.bulk.output import ListFile, Shard, check_nested
from recsys.trained.bulk.queries import (
    EveryUser,
    QueryFile,
    QuerySource,
    Unknown,
)
from recsys.trained.bulk.user_files import compute_file_digest
from recsys.trained.lookup import (
    SCHEMA,
    ClosedItems,
    add_columns,
    check_columns,
    parse_moment,
    print_note,
)
from recsys.trained.queries import ANY, Choice, Query, check_count

_EVERY = "all"
_MOST_ROWS = 1 << 19  # rows of a part, which is in memory as a whole


@dataclass(frozen=True)
class ListRequest:
    """Which lists are written where.

    Attributes:
        output: The file; with a shard, its name has the shard's number.
        users: A file of users; None: all users of the data.
        k: Items of a list.
        at: A moment, or `now`.
        context: Value by column of what all queries are asked in.
        choice: Which items may be recommended, and what is said of them.
        unknown: What becomes of an unknown id of the file.
        shard: Of all users, the part whose lists are written; None: all.
    """

    output: Path
    users: Path | None = None
    k: int = 10
    at: str = "now"
    context: dict[str, str] = field(default_factory=dict)
    choice: Choice = ANY
    unknown: Unknown = "error"
    shard: Shard | None = None

    def __post_init__(self) -> None:
        check_count("k", self.k)
        if self.unknown not in ("error", "skip"):
            raise ConfigError(f"unknown is '{self.unknown}'; give error or skip.")

    @property
    def path(self) -> Path:
        """The file that is written."""
        return self.output if self.shard is None else self.shard.name_file(self.output)


@dataclass(frozen=True)
class WrittenLists:
    """What there is at the end.

    Attributes:
        path: The file.
        queries: How many lists were asked for, but for rows that are left out; one is empty where
            nothing may be recommended.
        kept: How many parts an earlier start had left; all: the file was there.
        parts: How many parts it was made of.
    """

    path: Path
    queries: int
    kept: int
    parts: int

    def __str__(self) -> str:
        """A sentence."""
        were = "was" if self.kept == 1 else "were"
        went_on = f", {self.kept:,} of {self.parts:,} parts {were} there" if self.kept else ""
        users = "1 user" if self.queries == 1 else f"{self.queries:,} users"
        return f"{self.path}: lists of {users}{went_on}"


def parse_users(users: str | Path | None) -> Path | None:
    """A file of users; None for all users of the data, as the word `all` is."""
    return None if users is None or users == _EVERY else Path(users)


Describe = Callable[[Query], str]
OpenModel = Callable[[Callable[[Tables], None]], BulkModel]


def write_lists(request: ListRequest, describe: Describe, open_model: OpenModel) -> WrittenLists:
    """Writes the lists of all users, or of those of a file.

    The file is there whole or not at all, and the same bytes whether or not it was made at one go:
    whoever is stopped goes on with the same request, where complete parts stand beside the file.

    Args:
        request: What is asked for.
        describe: A sentence on the part of the data that is kept, for an unknown id.
        open_model: Opens the model, once its tables have passed a check.

    Raises:
        ConfigError: The request does not fit the run, or the data has changed since.
        DataError: A file cannot be read, an id is unknown, or parts of another request are there.
    """
    output = ListFile(request.path)
    digest = "all" if request.users is None else compute_file_digest(request.users)
    with output.hold():
        return _Job(request, describe, output, digest).write(open_model)


class _Job:
    """One call of `write_lists`.

    Args:
        request: What is asked for.
        describe: As in `write_lists`.
        output: Held by this process.
        digest: Of the file of users.
    """

    def __init__(
        self, request: ListRequest, describe: Describe, output: ListFile, digest: str
    ) -> None:
        self.request, self.describe, self.output, self.digest = request, describe, output, digest
        begun = output.read_moment() if request.at == "now" else None
        # Who goes on has the moment of the first start.
        self.moment = parse_moment(request.at) if begun is None else begun
        self.source: QuerySource | None = None
        self.closed = np.empty(0, dtype=np.int64)

    def check(self, tables: Tables) -> None:
        """Checks the request against the data, before anything is computed."""
        request = self.request
        self.closed = ClosedItems(tables.items).find(request.at, self.moment, request.choice.where)
        rows = pl.DataFrame(schema=SCHEMA)
        where = request.choice.where
        if where is not None and len(np.unique(self.closed)) == tables.items.height:
            print_note(
                f"no item that may be recommended fits where={where}, so that all lists are empty."
            )
        check_columns(tables.items, request.choice.columns)
        check_nested(add_columns(rows, tables.items, request.choice.columns), request.path)
        if request.users is None:
            self.source = EveryUser(tables)
            return
        source = QueryFile(request.users, self.output.copy, request.unknown)
        for note in source.look_up(tables, self.describe):
            print_note(note)
        self.source = source

    def write(self, open_model: OpenModel) -> WrittenLists:
        """Writes what is not there yet, and the file."""
        model, request = open_model(self.check), self.request
        assert self.source is not None, "the check made it"
        whole = (0, self.source.count)
        start, stop = whole if request.shard is None else request.shard.split(self.source.count)
        size = max(1, min(model.part, _MOST_ROWS // request.k))
        parts = [(at, min(at + size, stop)) for at in range(start, stop, size)] or [(start, start)]
        timed = model.reads_clock or AvailabilityWindows.from_items(model.tables.items) is not None
        moment = self.moment if timed else None
        plan = self._make_plan(model, start, stop, size)
        queries = stop - start - self.source.count_left_out(start, stop)
        if self.output.is_complete(plan, moment):
            self.output.discard_parts()
            return WrittenLists(self.output.path, queries, len(parts), len(parts))
        self.output.start(plan, self.moment)
        missing = self.output.list_missing(len(parts))
        self._write_parts(model, parts, missing)
        self.output.finish(len(parts), plan, moment)
        return WrittenLists(self.output.path, queries, len(parts) - len(missing), len(parts))

    def _make_plan(self, model: BulkModel, start: int, stop: int, size: int) -> dict[str, Any]:
        """All that the file depends on, but for the moment."""
        request = self.request
        return {
            "model": model.fingerprint,
            "way": type(model).__name__,  # whose last digits differ from another's
            "users": self.digest,
            "k": request.k,
            "at": request.at,
            "context": request.context,
            **vars(request.choice),  # of a retriever, what it is called
            "unknown": request.unknown,
            "rows": [start, stop],
            "part": size,
        }

    def _write_parts(
        self, model: BulkModel, parts: list[tuple[int, int]], missing: list[int]
    ) -> None:
        """Writes the parts that are not there, or not as they were written."""
        if not missing:
            return
        if len(missing) < len(parts):
            done = len(parts) - len(missing)
            print_status(f"{self.output.path}: {done:,} of {len(parts):,} parts are there")
        rank = model.make_ranker(self._make_setting())
        total = sum(parts[number][1] - parts[number][0] for number in missing)
        with track("lists", total, "users") as task:
            for number in missing:
                start, stop = parts[number]
                self.output.write_part(number, self._make_part(model, rank, start, stop))
                task.advance(stop - start)

    def _make_setting(self) -> Setting:
        request = self.request
        return Setting(request.k, self.moment, request.context, request.choice, self.closed)

    def _make_part(self, model: BulkModel, rank: Rank, start: int, stop: int) -> pl.DataFrame:
        """The lists of the queries from one number to before another."""
        assert self.source is not None
        rows = rank(self.source.read(start, stop)) if stop > start else pl.DataFrame(schema=SCHEMA)
        return add_columns(rows, model.tables.items, self.request.choice.columns)
