"""A conversation as a file of JSON lines: it can be read, gone on with, and replayed.

The first line says what answered, and with how many items; each further one is a turn, as
`Turn.to_json` has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError, DataError, raise_file_error
from recsys.runtime.files import format_record, read_records, sync_path, write_all
from recsys.runtime.locks import acquire_lock
from recsys.trained.conversation.critiques import Bound, HasValue, State
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.turns import Turn
from recsys.trained.queries import Query

VERSION = 1


@dataclass(frozen=True)
class Header:
    """What a conversation was had with.

    Attributes:
        recsys_conversation: Version of the file.
        model: Name of the run or bundle.
        catalog: Checksum of the items' ids and texts.
        size: Items of a list.
        at: The moment.
        user: Whom it began with, or None.
        history: What it began with, or None.
        context: Value by column.
    """

    recsys_conversation: int
    model: str
    catalog: str
    size: int
    at: str
    user: str | None
    history: list[str] | None
    context: dict[str, str]

    @classmethod
    def of(cls, model: ConversationModel, size: int) -> Header:
        """That of a conversation that begins now."""
        start = model.start or Query()
        history = None if start.history is None else list(start.history)
        return cls(
            VERSION,
            model.name,
            compute_checksum(model),
            size,
            model.at,
            start.user,
            history,
            model.context,
        )

    @property
    def start(self) -> Query | None:
        """What the conversation began with."""
        if self.user is not None:
            return Query(user=self.user)
        return None if self.history is None else Query(history=tuple(self.history))


@dataclass(frozen=True)
class Transcript:
    """What a file holds.

    Attributes:
        header: What answered.
        turns: The turns, in their order.
        size: Where its last whole line ends, in bytes.
    """

    header: Header
    turns: list[Turn]
    size: int


def compute_checksum(model: ConversationModel) -> str:
    """Of the ids and texts of all items, in their order."""
    digest = hashlib.sha256()
    for item, text in zip(model.ids, model.texts, strict=True):
        digest.update(f"{item}\0{text}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def read_transcript(path: Path) -> Transcript:
    """The header and the turns of a file; a last line that was cut short is left out.

    Raises:
        DataError: It cannot be read, or is no transcript.
    """
    with raise_file_error():
        records, size = read_records(path)
    if not records or "recsys_conversation" not in records[0]:
        raise DataError(f"{path} is no transcript of a conversation: its first line says none.")
    if records[0]["recsys_conversation"] != VERSION:
        raise DataError(
            f"{path} is a transcript of version {records[0]['recsys_conversation']}; this release "
            f"reads version {VERSION}."
        )
    try:
        header = Header(**records[0])
    except TypeError:
        raise DataError(f"{path}, line 1 is damaged; restore the file.") from None
    turns = []
    for number, record in enumerate(records[1:], 2):
        try:
            turns.append(Turn.from_json(record))
        except DataError as error:
            raise DataError(f"{path}, line {number} is damaged: {error}") from None
    return Transcript(header, turns, size)


def check_same(path: Path, before: Header, now: Header) -> None:
    """Raises where a conversation is gone on with by another model, or with other items.

    Raises:
        ConfigError: So it is.
    """
    if before.catalog != now.catalog or before.model != now.model:
        what = "other items" if before.model == now.model else "another model"
        raise ConfigError(
            f"{path} was had with {what} ({before.model}); give transcript= another file."
        )


def check_state(path: Path, turn: Turn, model: ConversationModel) -> None:
    """Raises where a turn speaks of what the model does not have.

    Raises:
        DataError: So it does.
    """
    state: State = turn.state
    named = [*state.list_left_out(), *state.listed]
    unknown = next((item for item in named if item not in model.rows), None)
    if unknown is not None:
        raise DataError(f"{path}, turn {turn.number}: there is no item '{unknown}'.")
    for each in state.list_filters():
        if isinstance(each, HasValue | Bound) and not model.columns.knows(each):
            raise DataError(
                f"{path}, turn {turn.number}: the items have no such value of '{each.column}'."
            )


class TranscriptFile:
    """A file that each turn is added to, whole or not at all; one process at a time has it.

    Args:
        path: The file; it is made where it is missing.
        header: Its first line, where it is new.

    Raises:
        DataError: It cannot be read or written, is in use, or is no transcript.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        with raise_file_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if not acquire_lock(self._handle):
                os.close(self._handle)
                raise DataError(f"{path}: another conversation writes to it; name another file.")
            size = os.fstat(self._handle).st_size
        if size and read_records(path)[0]:
            self._size = read_transcript(path).size
            with raise_file_error():
                os.ftruncate(self._handle, self._size)
            return
        self._size = 0
        with raise_file_error():
            os.ftruncate(self._handle, 0)
            sync_path(path.parent)
        self._append(asdict(header))

    def append(self, turn: Turn) -> None:
        """Adds a turn; it is on the disk when this returns.

        Raises:
            DataError: The disk is full or fails; the file is as it was.
        """
        self._append(turn.to_json())

    def close(self) -> None:
        """Closes the file and lets go of it."""
        os.close(self._handle)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = format_record(record)
        with raise_file_error():
            try:
                write_all(self._handle, line)
                os.fsync(self._handle)
            except BaseException:
                os.ftruncate(self._handle, self._size)
                raise
        self._size += len(line)


def compare_turns(expected: Turn, turn: Turn) -> str | None:
    """How a turn differs from the one that a transcript has; None where its list is the same.

    Args:
        expected: Of the transcript.
        turn: Of the same line, said again.
    """
    where = f'turn {turn.number} ("{turn.said}")' if turn.number else "the beginning"
    if turn.state.critiques != expected.state.critiques:
        return f"{where} is understood in another way"
    if turn.state.listed != expected.state.listed:
        was, now = (", ".join(state.listed[:5]) for state in (expected.state, turn.state))
        return f"{where} lists {now or 'nothing'} in place of {was or 'nothing'}"
    return None
