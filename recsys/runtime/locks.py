"""Locks on files: the system lets go of them however their holder ends."""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


class UseRegister:
    """Which folders this process uses, in a file that it keeps locked for as long as it lives.

    Readers of a shared folder hold no lock on it; by this file, who wants to remove the folder
    knows of them, and the lock goes however they end.

    Args:
        folder: Where the files of all processes lie.
    """

    def __init__(self, folder: Path) -> None:
        self._pid = os.getpid()
        self._path = folder / f"{socket.gethostname()}-{self._pid}"
        self._noted: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        while True:  # who looks may take away a file before its lock is held
            self._file = self._path.open("ab", buffering=0)
            acquire_lock(self._file, wait=True)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    break
            self._file.close()
        atexit.register(self.close)

    def is_mine(self) -> bool:
        """Whether this process made it; one that was forked has to make its own."""
        return self._pid == os.getpid()

    def note(self, path: Path) -> None:
        """Adds a folder to those that this process uses."""
        line = str(path.resolve())
        if line not in self._noted:
            self._file.write(f"{line}\n".encode("utf-8", "surrogateescape"))
            self._noted.add(line)

    def close(self) -> None:
        """Takes back what was noted; in a process that was forked, it stays with the first one."""
        atexit.unregister(self.close)
        if self.is_mine():
            with suppress(OSError):
                self._path.unlink()
        self._file.close()


def list_used(folder: Path) -> set[Path]:
    """The folders that living processes use, of those that note it in `folder`.

    What dead processes have left there is removed.

    Args:
        folder: Of a `UseRegister`.
    """
    out: set[Path] = set()
    for path in folder.glob("*-*"):
        try:
            with path.open("rb") as file:
                if acquire_lock(file):
                    path.unlink(missing_ok=True)
                else:
                    lines = file.read().decode("utf-8", "surrogateescape").splitlines()
                    out |= set(map(Path, lines))
        except FileNotFoundError:
            continue
    return out
