"""What people liked and disliked: kept durably, and heeded by the next recommendation."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.serve.records.journal import Journal

FEEDBACK = "feedback.jsonl"
"""User, item, event, label and time in milliseconds, a line each: events that a run can read."""

LABELS = {"like": 1.0, "dislike": 0.0, "view": 1.0, "buy": 1.0}
"""Label by event: 0 where it speaks against the item."""


@dataclass
class Reactions:
    """What one person said of items, by the latest word on each.

    Attributes:
        events: Event by item, in the order in which they were last spoken of.
    """

    events: dict[str, str] = field(default_factory=dict)

    def note(self, item: str, event: str) -> None:
        """Takes an event as the latest word on its item."""
        self.events.pop(item, None)
        self.events[item] = event

    @property
    def had(self) -> tuple[str, ...]:
        """What they took well, oldest first."""
        return tuple(item for item, event in self.events.items() if LABELS[event] > 0)

    @property
    def disliked(self) -> frozenset[str]:
        """What they spoke against."""
        return frozenset(item for item, event in self.events.items() if LABELS[event] == 0)


class FeedbackLog:
    """The feedback of all users.

    Args:
        folder: Of the service's state.

    Raises:
        DataError: The file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / FEEDBACK)
        self._users: dict[str, Reactions] = {}
        for number, record in enumerate(self._journal.records, 1):
            self._note(record, number)
        self.count = len(self._journal.records)
        self._journal.records = []

    def _note(self, record: dict[str, Any], number: int) -> None:
        try:
            user, item, event = (record[name] for name in ("user", "item", "event"))
            if event not in LABELS:
                raise KeyError(event)
            self._users.setdefault(str(user), Reactions()).note(str(item), event)
        except KeyError as error:
            raise DataError(
                f"{self._journal.path}, line {number}: {error} is missing or unknown; restore the "
                "file, or remove that line."
            ) from None

    async def add(self, events: Sequence[tuple[str, str, str]]) -> None:
        """Keeps events; they count once they are on the disk.

        Args:
            events: User, item and event of each.

        Raises:
            DataError: The disk is full or fails; none is kept.
        """
        now = round(time.time() * 1000)
        records = [
            {"user": user, "item": item, "event": event, "label": LABELS[event], "time": now}
            for user, item, event in events
        ]

        def note() -> None:
            for user, item, event in events:
                self._users.setdefault(user, Reactions()).note(item, event)
            self.count += len(events)

        await self._journal.append(records, note)

    async def forget(self, users: Collection[str]) -> int:
        """Takes all events of users out of the file and out of what is heeded.

        Returns:
            How many events there were.

        Raises:
            DataError: The disk is full or fails; nothing is forgotten.
        """
        count = await self._journal.drop(lambda record: str(record["user"]) in users)
        for user in users:
            self._users.pop(user, None)
        self.count -= count
        return count

    def get(self, user: str) -> Reactions:
        """What a user said; nothing where they are unknown."""
        return self._users.get(user) or Reactions()

    async def close(self) -> None:
        """Waits for what is being written."""
        await self._journal.close()
