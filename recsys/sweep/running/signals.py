"""A lock of a sweep's folder, and signals that its driver hears."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether no other process is within the block for the same file."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


class SignalRecorder:
    """Notes SIGINT and SIGTERM; a second SIGINT raises KeyboardInterrupt as usual."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> SignalRecorder:
        self._before = {
            s: signal.signal(s, self._record_signal) for s in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _record_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum
