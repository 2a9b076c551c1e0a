"""Locks on files: the system lets go of them however their holder ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def acquire_lock(file: BinaryIO | int, wait: bool = False) -> bool:
    """Takes the lock on an open file, which is held until the file is closed.

    Args:
        file: The file, or its descriptor.
        wait: Wait for its holder, or give up at once.

    Returns:
        Whether it is ours: False where another process holds it and `wait` is false.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether no other process is within the block for the same file, which is made."""
    with path.open("ab") as file:
        yield acquire_lock(file)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; nobody holds that of one that is not there."""
    try:
        with path.open("rb") as file:
            # Shared, so that two who look at the same time do not take each other for a holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
