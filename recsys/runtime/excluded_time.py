"""Time excluded from the method's cost: baselines, tracking, and what runs share on the disk.

Whichever run comes first tokenises a catalog and builds a cache, baselines are evaluated where a
model trains and not where a baseline is the run itself, and a tracker is on or off: none of it is a
cost of the method, and two methods could not be compared if it counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Elapsed:
    """Time of this process.

    Attributes:
        seconds: By the clock on the wall.
        cpu_seconds: Of its processors.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, other: Elapsed) -> Elapsed:
        """The sum."""
        return Elapsed(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def subtract(self, other: Elapsed) -> Elapsed:
        """The difference."""
        return Elapsed(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)


def read_clocks() -> Elapsed:
    """Readings of both clocks; their difference to later ones is what was spent."""
    return Elapsed(time.monotonic(), time.process_time())


_total = Elapsed()
_open = False
_command: Elapsed | None = None
_kept: dict[Path, Elapsed | None] = {}
_IMPORTED = time.monotonic()

YOUNG = 120.0
"""Seconds; a command that says to be older when it begins was something else before."""


def _find_process_start() -> float:
    """When this process began, by the monotonic clock; where that is not told, this import."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED
    return time.monotonic() - age if 0 <= age < YOUNG else _IMPORTED


def mark_command_start() -> None:
    """Lets the next run begin where this process began, for a command that makes one run."""
    global _command
    _command = Elapsed(_find_process_start(), 0.0)


def begin_run() -> Elapsed:
    """The clocks where a run begins: now, or where its command began; nothing is in use yet."""
    global _command
    found, _command = _command or read_clocks(), None
    _kept.clear()
    return found


def exclude_startup(began: Elapsed) -> Elapsed:
    """Excludes all since a run began: starting Python, imports, configuration.

    Returns:
        The time excluded.
    """
    global _total
    found = read_clocks().subtract(began)
    _total = _total.add(found)
    return found


def record_build(folder: Path, made: Elapsed | None) -> None:
    """Notes what building a folder took that runs share, whichever run built it.

    Args:
        folder: That this run reads.
        made: What building it took, as far as it is no cost of this run already; None where a
            version before this note built it.
    """
    _kept[folder] = made


def compute_build_time() -> Elapsed | None:
    """What building all that took that this run reads and others share; None if not all is known.

    On a machine that had nothing, the method would have cost this much more.
    """
    out = Elapsed()
    for made in _kept.values():
        if made is None:
            return None
        out = out.add(made)
    return out


@contextmanager
def excluded_time() -> Iterator[None]:
    """Excludes what happens within from the method's cost; once, where one is in another."""
    global _total, _open
    if _open:
        yield
        return
    began, _open = read_clocks(), True
    try:
        yield
    finally:
        _open = False
        _total = _total.add(read_clocks().subtract(began))


def get_excluded_total() -> Elapsed:
    """All time of this process that was excluded from its methods' cost so far."""
    return _total
