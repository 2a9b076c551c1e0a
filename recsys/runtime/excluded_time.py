"""What a run spends beside its method: floors, tracking, and what runs share on the disk.

Whichever run comes first tokenises a catalog and builds a cache, floors are measured beside a model
that trains and not beside a baseline, and a tracker is asked for or not: none of it is a cost of
the method, and with it two methods cannot be compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    """Time of this process.

    Attributes:
        seconds: By the clock on the wall.
        cpu_seconds: Of its processors.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """The sum."""
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def minus(self, other: Spent) -> Spent:
        """The difference."""
        return Spent(self.seconds - other.seconds, self.cpu_seconds - other.cpu_seconds)


def now() -> Spent:
    """Readings of both clocks; their difference to later ones is what was spent."""
    return Spent(time.monotonic(), time.process_time())


_total = Spent()
_open = False
_command: Spent | None = None
_kept: dict[Path, Spent | None] = {}
_IMPORTED = time.monotonic()

YOUNG = 120.0
"""Seconds; a command that says to be older when it begins was something else before."""


def _process_began() -> float:
    """When this process began, by the monotonic clock; where that is not told, this import."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(stat.rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED
    return time.monotonic() - age if 0 <= age < YOUNG else _IMPORTED


def command_began() -> None:
    """Lets the next run begin where this process began, for a command that makes one run."""
    global _command
    _command = Spent(_process_began(), 0.0)


def begin() -> Spent:
    """The clocks where a run begins: now, or where its command began; nothing is in use yet."""
    global _command
    found, _command = _command or now(), None
    _kept.clear()
    return found


def ready(began: Spent) -> Spent:
    """Counts all since a run began as spent beside it: starting Python, imports, configuration.

    Returns:
        What that was.
    """
    global _total
    found = now().minus(began)
    _total = _total.plus(found)
    return found


def use(folder: Path, made: Spent | None) -> None:
    """Notes what building a folder took that runs share, whichever run built it.

    Args:
        folder: That this run reads.
        made: What building it took, as far as it is no cost of this run already; None where a
            version before this note built it.
    """
    _kept[folder] = made


def kept() -> Spent | None:
    """What building all that took that this run reads and others share; None if not all is known.

    It is what the method would have cost on a machine that had nothing, beside its own cost.
    """
    out = Spent()
    for made in _kept.values():
        if made is None:
            return None
        out = out.plus(made)
    return out


@contextmanager
def beside() -> Iterator[None]:
    """Counts what happens within as spent beside the method; once, where one is in another."""
    global _total, _open
    if _open:
        yield
        return
    began, _open = now(), True
    try:
        yield
    finally:
        _open = False
        _total = _total.plus(now().minus(began))


def spent() -> Spent:
    """All that this process has spent beside its methods so far."""
    return _total
