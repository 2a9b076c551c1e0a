"""A file of JSON lines that a record is in, on the disk, before its sender hears so."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import raise_file_error
from recsys.runtime.files import (
    format_record,
    make_temporary_path,
    read_records,
    sync_path,
    write_all,
)


@dataclass
class _Waiting:
    """Lines that are to be kept, what then counts, and who waits for it."""

    lines: bytes
    then: Callable[[], None]
    done: asyncio.Future[None]


class Journal:
    """A growing file of records; those that wait at the same time share one flush.

    A process that is killed may leave the beginning of a line that nobody was told is kept: it is
    cut off when the file is opened.

    Args:
        path: The file; it is made if it is missing.

    Attributes:
        path: It.
        records: What it held when it was opened, the oldest first.

    Raises:
        DataError: The file cannot be read or written, or a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with raise_file_error():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            sync_path(path.parent)
            self.records, self._size = read_records(path)
            os.ftruncate(self._handle, self._size)
            os.fsync(self._handle)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "recsys-journal")

    async def append(self, records: Sequence[Mapping[str, Any]], then: Callable[[], None]) -> None:
        """Returns once all records are on the disk, or none is.

        Args:
            records: What is to be kept.
            then: Called once they are on the disk, in the order of the file, also where the sender
                has gone.

        Raises:
            DataError: The disk is full or fails; the file is as it was.
        """
        lines = b"".join(format_record(record) for record in records)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Waiting(lines, then, done))
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_waiting())
        # A sender that goes away does not take back what others wait for.
        await asyncio.shield(done)

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            content = b"".join(each.lines for each in batch)
            try:
                await loop.run_in_executor(self._thread, self._write, content)
            except Exception as error:
                for each in batch:
                    each.done.set_exception(error)
                    each.done.exception()  # its sender may have gone
            else:
                for each in batch:
                    each.then()
                    each.done.set_result(None)

    def _write(self, content: bytes) -> None:
        with raise_file_error():
            try:
                write_all(self._handle, content)
                os.fsync(self._handle)
            except BaseException:
                os.ftruncate(self._handle, self._size)
                raise
        self._size += len(content)

    async def drop(self, drops: Callable[[Mapping[str, Any]], bool]) -> int:
        """Takes records out of the file, which is the old one or the new one at any time.

        What was appended before is looked at; what is appended meanwhile comes behind.

        Args:
            drops: Whether a record is to go.

        Returns:
            How many went.

        Raises:
            DataError: The disk is full or fails; the file is as it was.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._drop, drops)

    def _drop(self, drops: Callable[[Mapping[str, Any]], bool]) -> int:
        with raise_file_error():
            lines = self.path.read_bytes()[: self._size].splitlines(keepends=True)
            kept = [line for line in lines if not drops(json.loads(line))]
            if len(kept) == len(lines):
                return 0
            self._replace(b"".join(kept))
        return len(lines) - len(kept)

    def _replace(self, content: bytes) -> None:
        """Puts another file in the place of this one, and goes on with that."""
        fresh = make_temporary_path(self.path)
        handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            write_all(handle, content)
            os.fsync(handle)
            fresh.replace(self.path)
        except BaseException:
            os.close(handle)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._handle)
        self._handle, self._size = handle, len(content)
        sync_path(self.path.parent)

    async def close(self) -> None:
        """Waits for what is being written, and closes the file."""
        if self._writer is not None:
            await self._writer
        self._thread.shutdown()
        os.close(self._handle)
