"""A file of JSON lines that a record is in, on the disk, before its sender hears so."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recsys.errors import DataError, raise_file_error


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
            _sync_folder(path.parent)
            self.records, self._size = _read_records(path)
            os.ftruncate(self._handle, self._size)
            os.fsync(self._handle)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "recsys-journal")

    async def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Returns once all records are on the disk, or none is.

        Raises:
            DataError: The disk is full or fails; the file is as it was.
        """
        lines = b"".join(_format_record(record) for record in records)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((lines, done))
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write_waiting())
        # A sender that goes away does not take back what others wait for.
        await asyncio.shield(done)

    async def _write_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            content = b"".join(lines for lines, _ in batch)
            try:
                await loop.run_in_executor(self._thread, self._write, content)
            except Exception as error:
                for _, done in batch:
                    done.set_exception(error)
                    done.exception()  # its sender may have gone
            else:
                for _, done in batch:
                    done.set_result(None)

    def _write(self, content: bytes) -> None:
        with raise_file_error():
            try:
                left = memoryview(content)
                while left:
                    left = left[os.write(self._handle, left) :]
                os.fsync(self._handle)
            except BaseException:
                os.ftruncate(self._handle, self._size)
                raise
        self._size += len(content)

    async def close(self) -> None:
        """Waits for what is being written, and closes the file."""
        if self._writer is not None:
            await self._writer
        self._thread.shutdown()
        os.close(self._handle)


def _format_record(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a file, and where the last whole one ends.

    Raises:
        DataError: A line before the last is damaged.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    records, end = [], 0
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line break was cut short
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            # A flush that was cut by a failing machine may leave zeros where its last lines were.
            if number == len(lines) - 1 or not any(content[end:].strip(b"\0\n")):
                break
            raise DataError(
                f"{path}, line {number} is damaged; restore the file, or remove that line."
            )
        records.append(record)
        end += len(line) + 1
    return records, end


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
