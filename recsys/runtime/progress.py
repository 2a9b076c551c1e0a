"""How far something is: a bar on a terminal, and where there is none a line now and then.

Both go to the standard error, on the first rank: what a command prints stays as scripts read it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys.runtime.ranks import get_rank

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY = 30.0
"""Seconds between two lines where no terminal shows a bar."""
SHORT = 5.0
"""Seconds below which a task is not worth a line."""


def print_status(text: str) -> None:
    """One line on what is being done."""
    if get_rank() == 0:
        mark_output()
        print(text, file=sys.stderr, flush=True)


def mark_output() -> None:
    """Notes that something was said, so that the next line on how far it is can wait."""
    global _said
    _said = time.monotonic()


def format_duration(seconds: float) -> str:
    """A time as a person says it, such as 40 s, 3 min or 2 h 10 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class ProgressTask:
    """Something of known length that is being done; this one shows nothing.

    Args:
        what: What it is.
        total: Its length.
        unit: What is counted.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done, self._began = 0, time.monotonic()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.advance_to(self.done + count)

    def advance_to(self, done: int, note: Callable[[], str] | None = None) -> None:
        """So many are done by now; a note is asked for, where it is shown, for the time left."""
        self.done = done
        self.show(note or self._format_remaining)

    def show(self, note: Callable[[], str]) -> None:
        """Shows how far it is."""

    def _format_remaining(self) -> str:
        """The time that is left at the pace until now."""
        if not 0 < self.done < self.total:
            return ""
        each = (time.monotonic() - self._began) / self.done
        return f"left {format_duration(each * (self.total - self.done))}"


class _LineTask(ProgressTask):
    """Writes a line when none has been written for a while."""

    def show(self, note: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - _said < EVERY or now - self._began < SHORT or self.done >= self.total:
            return
        share = f"{self.done:,} of {self.total:,} {self.unit} ({self.done / self.total:.0%})"
        said = note()
        print_status(f"{self.what}: {share}{', ' if said else ''}{said}")


class _BarTask(ProgressTask):
    """A bar beside others."""

    def __init__(self, what: str, total: int, unit: str, bars: Progress) -> None:
        super().__init__(what, total, unit)
        self._bars = bars
        self.id: TaskID = bars.add_task(what, total=total, note="")

    def show(self, note: Callable[[], str]) -> None:
        self._bars.update(self.id, completed=self.done, note=note())


_said = time.monotonic()
_bars: Progress | None = None


@contextmanager
def track(what: str, total: int, unit: str, show: bool = True) -> Iterator[ProgressTask]:
    """Shows how far something is while it lasts, on the first rank.

    Args:
        what: What is being done, as in "zero-shot test".
        total: How much of it there is.
        unit: What is counted, as in "texts".
        show: Whether to show it at all.

    Yields:
        To be told what is done.
    """
    if not show or get_rank() != 0 or total < 1:
        yield ProgressTask(what, total, unit)
    elif not _is_on_terminal():
        yield _LineTask(what, total, unit)
    else:
        with _open_bars() as bars:
            bar = _BarTask(what, total, unit, bars)
            try:
                yield bar
            finally:
                bars.remove_task(bar.id)


def _is_on_terminal() -> bool:
    from rich.console import Console

    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def _open_bars() -> Iterator[Progress]:
    """The bars of this process, which are on one screen: a bar within another joins it."""
    global _bars
    if _bars is not None:
        yield _bars
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
        # What goes to a file must not end up beside the bars.
        redirect_stdout=sys.stdout.isatty(),
    ) as _bars:
        try:
            yield _bars
        finally:
            _bars = None
