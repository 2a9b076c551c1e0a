"""The largest anonymous memory of a process, looked at many times a second.

The system keeps a true peak of what is resident, and none of what is anonymous. The resident size
holds the pages of memory maps too, and kept states are mapped: it would inflate for exactly the
methods that use them. So the peak is one of samples, and is called so wherever it is shown.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

PACE = 0.02
"""Seconds between two looks. One look takes some ten microseconds."""

_STATM = Path("/proc/self/statm")
_CGROUP = Path("/sys/fs/cgroup")


def read_anonymous_mb() -> float | None:
    """Anonymous memory of this process now, in MiB, or None where the system does not tell.

    What is resident, less what is shared with files: memory maps of caches do not count.
    """
    try:
        _, resident, shared, *_ = _STATM.read_bytes().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def read_available_gb() -> float | None:
    """Memory that can be had without swapping, in GB, or None where the system does not tell.

    The system's own estimate, or what the control group of this process leaves beside anonymous
    memory where that is less.
    """
    try:
        free = _read_count(Path("/proc/meminfo"), "MemAvailable:") * 1024
    except (OSError, ValueError):
        return None
    with suppress(OSError, ValueError):  # another system, or "max"
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        free = min(free, limit - _read_count(_CGROUP / "memory.stat", "anon"))
    return free / 1e9


def _read_count(path: Path, name: str) -> int:
    """The number behind a name in a file of lines."""
    (count,) = (
        int(words[1])
        for words in map(str.split, path.read_text(encoding="ascii").splitlines())
        if words[:1] == [name]
    )
    return count


class MemoryMonitor:
    """Looks at the memory of this process, from a thread of its own, while it is entered.

    A peak that is shorter than the pace may be missed, and one within an operation of Python that
    keeps all threads waiting.

    Args:
        pace: Seconds between two looks.

    Attributes:
        peak: Largest sample in MiB; 0 where the system does not tell.
    """

    def __init__(self, pace: float = PACE) -> None:
        self.peak = 0.0
        self._pace = pace
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def sample(self) -> None:
        """Looks once."""
        self.peak = max(self.peak, read_anonymous_mb() or 0.0)

    def __enter__(self) -> MemoryMonitor:
        self._ended.clear()
        if read_anonymous_mb() is not None:
            self._thread = threading.Thread(target=self._poll, name="memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            with suppress(RuntimeError):
                self._thread.join(timeout=1)
        self.sample()

    def _poll(self) -> None:
        while not self._ended.wait(self._pace):
            self.sample()
