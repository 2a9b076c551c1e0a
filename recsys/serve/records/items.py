"""What is told of items while the service runs: kept durably, and heeded by the next query."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import DataError
from recsys.serve.records.journal import Journal

ITEMS = "items.jsonl"
"""Item, what was done with it (add, remove or restore), its text and columns where it was added,
and time in milliseconds, a line each."""

ItemRow = Mapping[str, Any]
"""`text` and columns of an item that was added."""


class ChangedItems:
    """The items that were added, and those that were removed and not restored since.

    Args:
        folder: Of the service's state.

    Attributes:
        removed: Ids of those that are not to be recommended.
        added: What was said of each that was added or changed, the last word on each column.

    Raises:
        DataError: The file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / ITEMS)
        removed: set[str] = set()
        added: dict[str, ItemRow] = {}
        for number, record in enumerate(self._journal.records, 1):
            item, change, row = (record.get(name) for name in ("item", "change", "row"))
            known = change in ("remove", "restore") or (change == "add" and isinstance(row, dict))
            if not isinstance(item, str) or not known:
                raise DataError(
                    f"{self._journal.path}, line {number} names no change of an item; restore the "
                    "file, or remove that line."
                )
            (removed.add if change == "remove" else removed.discard)(item)
            if isinstance(row, dict):
                added = merge_rows(added, {item: row})
        self.added: Mapping[str, ItemRow] = added
        self.removed = frozenset(removed)
        self._journal.records = []

    async def change(
        self, add: Mapping[str, ItemRow], remove: Sequence[str], restore: Sequence[str]
    ) -> None:
        """Adds, removes and restores items; it counts once it is on the disk.

        An item that is added is no longer removed.

        Raises:
            DataError: The disk is full or fails; nothing is changed.
        """
        now = round(time.time() * 1000)
        changes: list[dict[str, Any]] = [
            *({"item": item, "change": "add", "row": row} for item, row in add.items()),
            *({"item": item, "change": "remove"} for item in remove),
            *({"item": item, "change": "restore"} for item in restore),
        ]

        def note() -> None:
            self.added = merge_rows(self.added, add)
            self.removed = (self.removed | set(remove)) - set(restore) - add.keys()

        await self._journal.append([{**each, "time": now} for each in changes], note)

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._journal.close()


def merge_rows(before: Mapping[str, ItemRow], add: Mapping[str, ItemRow]) -> dict[str, ItemRow]:
    """What is said of items once more was said of some: a column that is not given stays.

    The text is always given: None stands for the one that the columns make.

    Args:
        before: Row by item.
        add: Rows that were given since.
    """
    return {**before, **{item: {**before.get(item, {}), **row} for item, row in add.items()}}


def make_tables(items: Mapping[str, ItemRow]) -> Iterator[pl.DataFrame]:
    """A table for those of which the same is said: what one lacks, no other one is to fill."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for item, row in items.items():
        said = (name for name, value in row.items() if name != "text" or value is not None)
        alike.setdefault(tuple(sorted(said)), []).append(item)
    for names, ids in alike.items():
        columns = [_make_column(name, [items[item][name] for item in ids]) for name in names]
        yield pl.DataFrame([pl.Series("item", ids), *columns])


def _make_column(name: str, values: list[Any]) -> pl.Series:
    """A column of values of one kind, or as texts where the kinds differ."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1:
        values = [None if value is None else str(value) for value in values]
    return pl.Series(name, values, dtype=pl.String if not kinds else None)
