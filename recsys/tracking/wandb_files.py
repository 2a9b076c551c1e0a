"""The files that a run at Weights & Biases leaves on this machine, and what lies in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import DataError

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

MAGIC = b":W&B"
HEADER = 7
BLOCK = 32768
FULL, FIRST, LAST = 1, 2, 4


def list_attempts(folder: Path, run_id: str) -> list[Path]:
    """The folders that the processes of a run have left, oldest first.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    found = [path.parent for path in (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")]
    # The name holds the time of the start: offline-run-20260131_120000-ID, or run-...
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def list_files(folder: Path, name: str) -> list[Path]:
    """The files that a run left in its folder, one a process, oldest first.

    Args:
        folder: Of the run.
        name: Its id.
    """
    return [path / f"run-{name}.wandb" for path in list_attempts(folder, name)]


def read_last_step(folder: Path, run_id: str) -> int:
    """The last step whose row lies in the files of a run; -1 where none does.

    A process that was killed has written whole blocks of its file only.

    Args:
        folder: Of the run.
        run_id: Of the run.
    """
    last = -1
    for path in list_files(folder, run_id):
        with suppress(DataError):  # killed before it wrote the head of its file
            for record in read_records(path):
                if record.WhichOneof("record_type") == "history":
                    last = max(last, record.history.step.num)
    return last


def read_records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file, up to a torn end.

    The file is a header of 7 bytes and a log in LevelDB's format: blocks of 32 KiB of chunks, each
    with checksum (4 bytes), length (2), kind (1) and content; a record may lie in several chunks.
    Source: LevelDB's `doc/log_format.md`.

    Raises:
        DataError: It is no such file.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise DataError(f"{path} is no file of a Weights & Biases run; remove it.")
    at, part = HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # too small for another chunk's head
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        chunk = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if not kind or len(chunk) < length:  # killed within a write
            return
        part = chunk if kind in (FULL, FIRST) else part + chunk
        if kind not in (FULL, LAST):
            continue
        record = Record()
        try:
            record.ParseFromString(part)
        except DecodeError:
            return
        yield record
