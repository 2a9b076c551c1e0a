"""What a run spends beside its method: floors, tracking, and what runs share on the disk.

Whichever run comes first tokenises a catalog and builds a cache, floors are measured beside a model
that trains and not beside a baseline, and a tracker is asked for or not: none of it is a cost of
the method, and with it two methods cannot be compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
