"""Files that are either whole or absent, also after a crash or on a full disk; a run's names."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys.errors import FULL, DataError, DiskFullError, describe_file_error

CONFIG = "config.yaml"
"""The first file of a run's folder: its resolved configuration, and what its lock is on."""

PRETRAINING = "pretraining.yaml"
"""In its place in the folder of a pretraining, which trains an encoder and ranks nothing."""

ENCODER_FOLDER = "encoder"
"""Folder of the encoder that a pretraining leaves, as transformers has it."""

START = "start.json"
"""What a run knows before it trains: `runs.state.RunState`."""

RESULT = "result.json"
"""The last file of a run's folder: its presence says that the run is complete."""

CASES = "cases.parquet"
"""A row for each test case."""

REPEATED_CASES = "repeated.parquet"
"""The same of those whose item the user had before, where they are counted apart."""

CATALOG = "catalog.parquet"
"""Which items a run has learned of: ids, checksums of texts, and how many events they had."""

VALIDATIONS = "validations.jsonl"
"""A line for each validation, that before the first step included, written as they come."""

LOGS = "log"
"""Folder of what is logged."""

METRICS = Path(LOGS, "metrics.csv")
"""What is logged by step."""

CHECKPOINTS = "checkpoints"
"""Folder of parameters."""

LAST = Path(CHECKPOINTS, "last.ckpt")
"""The whole state of a training, by which it goes on; gone when the run is complete."""

BEST = Path(CHECKPOINTS, "best.safetensors")
"""What was trained, as it was at the best validation."""

FIT = "fit.json"
"""What validation cases decided, where an architecture is fitted at once: `recommender.fitted`."""

PROFILE = "profile.json"
"""Seconds by stage, with `profile=true`."""

ENDED = "ended.json"
"""What a signal means, written into the folder before it is sent: `{"state", "reason"}`."""

RANK_ERROR = "rank_error.json"
"""The error that ended a rank other than the first."""

ERROR_REPORT = "error.txt"
"""The traceback of what nobody foresaw."""

TRACKING_FAILURE = "tracking.json"
"""Why the service that a run logs to was given up."""

JOB = "job.json"
"""The job of a cluster that a run, or several seeds, were made by: `runs.jobs`."""

SEEDS = "seeds.json"
"""The first file of a folder of several seeds: its plan."""

PREPARED = "data.json"
"""In a folder of canonical tables: which split and keys they were described with."""

SWEEP = "sweep.json"
"""What a sweep has found so far, in its folder."""

CURRENT = "current.json"
"""Beside runs: which of them is in use, and which was before."""

_ABOVE = (errno.ENOENT, errno.EEXIST)  # no folder can be made where the path says
_CUT = re.compile(r"\d+ requested and \d+ written")
_LONGEST = 200  # bytes kept of a name, so that one of 255 has room for what stands beside it
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def make_temporary_path(path: Path) -> Path:
    """A new hidden name beside `path`, so that a rename never crosses file systems."""
    name = path.name.encode()[:_LONGEST].decode(errors="ignore")
    return path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")


def remove_temporary_files(folder: Path) -> None:
    """Removes what writers that were killed have left half-written in a folder and below.

    Only for who holds the folder alone: the file of a writer at work looks the same.
    """
    for left in folder.rglob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", left.name) and left.is_file():
            left.unlink(missing_ok=True)


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turns a full disk, and whatever else keeps `path` from being written, into a sentence.

    Raises:
        DiskFullError: The disk, the quota or a limit is full.
        DataError: The path cannot be written by this
            user or at all; every other OSError passes unchanged.
    """
    try:
        yield
    except OSError as err:
        # NumPy says so without a number, of a disk as of a limit.
        cut = err.errno is None and _CUT.search(str(err)) is not None
        if err.errno in FULL or cut:
            limit = ", or files may not be so large (ulimit -f)" if cut else ""
            raise DiskFullError(
                f"{path} could not be written because the disk or the quota is full{limit}; "
                "free some space or choose another folder"
            ) from err
        sentence = describe_file_error(err, path)
        if sentence is None and err.errno in _ABOVE:
            sentence = f"{path}: no folder can be made there; choose another place."
        if sentence is None:
            raise
        raise DataError(sentence) from err


def sync_path(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    """Flushes every regular file and folder below `folder`, and `folder` itself."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(where, name)
            if file.is_file() and not file.is_symlink():
                sync_path(file)
        sync_path(Path(where))


def write_atomic(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Args:
        path: The file; it is replaced if it exists, and its parents are made.
        content: Bytes as they are, or text, written as UTF-8.
        mode: Who may read and write it, as `os.chmod` has it; None: as the system gives it.

    Raises:
        DataError: The disk is full; nothing is left behind and an old file stands.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = make_temporary_path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as handle:
                if mode is not None:
                    os.fchmod(handle.fileno(), mode)
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_path(path.parent)


def publish_file(temporary: Path, path: Path) -> None:
    """Renames a file that is whole into the place of another, once it is on the disk.

    Args:
        temporary: The file, on the same file system.
        path: What it becomes; a file of that name is replaced.

    Raises:
        DataError: It cannot be written there.
    """
    with translate_write_errors(path):
        sync_path(temporary)
        temporary.replace(path)
        sync_path(path.parent)


@contextmanager
def open_atomic_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Gives an empty folder to fill; it becomes `path`, whole, when the block ends well.

    Args:
        path: The folder to make; it must not exist with content when the block ends.
        replace: Whether a folder that is there is replaced instead. On Linux both change places in
            one step, so that a reader finds one or the other; elsewhere there is none for a
            moment. A link stays, and the folder that it leads to is replaced.

    Yields:
        The folder to write into, beside `path`.

    Raises:
        DataError: The disk is full, or `path` exists already; nothing is left behind.
    """
    path = path.resolve() if replace else path
    temporary = make_temporary_path(path)
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # not mkdtemp: it would close the folder to everyone else who shares the disk
        temporary.mkdir()
        try:
            yield temporary
            _sync_tree(temporary)
            _replace(temporary, path) if replace else _publish(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_path(path.parent)


def _publish(temporary: Path, path: Path) -> None:
    """Renames a whole folder into place.

    Raises:
        DataError: `path` exists already.
    """
    try:
        temporary.rename(path)
    except OSError as err:
        if err.errno in _TAKEN:
            raise DataError(f"{path} exists already; remove it or choose another folder") from err
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Puts a whole folder in the place of one that may be there, which is removed."""
    if not path.exists():
        _publish(temporary, path)
        return
    if not _exchange(temporary, path):
        old = make_temporary_path(path)
        path.rename(old)
        temporary.rename(path)
        temporary = old
    shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step; false where the system or the disk cannot."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # a system without it
        return False
    names = (os.fsencode(one.absolute()), os.fsencode(other.absolute()))
    # Paths are absolute, so that the folders (0) count for nothing; the last word is the kernel's
    # RENAME_EXCHANGE.
    return not rename(0, names[0], 0, names[1], 2)


def format_record(record: Mapping[str, Any]) -> bytes:
    """A record as a line."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a file, and where the last whole one ends, in bytes.

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


def write_all(handle: int, content: bytes) -> None:
    """Writes a content whole to a file descriptor."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]
