"""Items that are not to be recommended for now: kept durably, and heeded by the next query."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from recsys.errors import DataError
from recsys.serve.records.journal import Journal

ITEMS = "items.jsonl"
"""Item, what was done with it (remove or restore) and time in milliseconds, a line each."""


class RemovedItems:
    """The items that were removed and not restored since.

    Args:
        folder: Of the service's state.

    Attributes:
        ids: Their ids.

    Raises:
        DataError: The file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / ITEMS)
        removed: set[str] = set()
        for number, record in enumerate(self._journal.records, 1):
            item, change = record.get("item"), record.get("change")
            if not isinstance(item, str) or change not in ("remove", "restore"):
                raise DataError(
                    f"{self._journal.path}, line {number} names no change of an item; restore the "
                    "file, or remove that line."
                )
            (removed.add if change == "remove" else removed.discard)(item)
        self.ids = frozenset(removed)
        self._journal.records = []

    async def change(self, remove: Sequence[str], restore: Sequence[str]) -> None:
        """Removes and restores items; it counts once it is on the disk.

        Raises:
            DataError: The disk is full or fails; nothing is changed.
        """
        now = round(time.time() * 1000)
        changes = [(item, "remove") for item in remove] + [(item, "restore") for item in restore]

        def note() -> None:
            self.ids = (self.ids | set(remove)) - set(restore)

        records = [{"item": item, "change": change, "time": now} for item, change in changes]
        await self._journal.append(records, note)

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._journal.close()
