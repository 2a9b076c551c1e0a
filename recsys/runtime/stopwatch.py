"""Where the time goes: every moment belongs to exactly one stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

START, OTHER, EVALUATION = "start", "other", "evaluation"

STEP = ("data", "encode", "user", "loss", "backward", "optimiser")
"""Stages of a training step, in order."""

STAGES = (START, *STEP, EVALUATION, OTHER)

_NOTHING: AbstractContextManager[None] = nullcontext()


class Stopwatch:
    """Adds up seconds by stage; turned off it does nothing.

    A stage within another takes its time away from it, so that the stages sum up to the time since
    `begin`. Evaluation is one stage as a whole: nothing within it counts as anything else.

    Args:
        on: Whether it measures.
        before: Seconds by stage to go on from.

    Attributes:
        wait: Called before the time is taken. A device that works behind the host's back has to be
            waited for, or its work would count where the host happens to wait for it next.
    """

    def __init__(self, on: bool, before: Mapping[str, float] | None = None) -> None:
        self.on = on
        self.wait: Callable[[], None] | None = None
        self._seconds = dict.fromkeys(STAGES, 0.0) | dict(before or {})
        self._stack: list[str] = []
        self._mark = 0.0

    def begin(self, at: float) -> None:
        """Begins in the stage `start`.

        Args:
            at: The monotonic time that counts as the beginning.
        """
        self._stack, self._mark = [START], at

    def end_startup(self) -> None:
        """Ends the stage `start`; what no other stage takes from here on is `other`."""
        if self.on and self._stack:
            self._add_elapsed()
            self._stack[0] = OTHER

    def push(self, stage: str) -> None:
        """Enters a stage."""
        if self.on and self._stack:
            self._add_elapsed()
            self._stack.append(EVALUATION if self._stack[-1] == EVALUATION else stage)

    def pop(self) -> None:
        """Comes back to the stage before."""
        if self.on and len(self._stack) > 1:
            self._add_elapsed()
            self._stack.pop()

    def time_stage(self, name: str) -> AbstractContextManager[None]:
        """A context that is one stage."""
        return self._enter_stage(name) if self.on else _NOTHING

    @contextmanager
    def _enter_stage(self, name: str) -> Iterator[None]:
        self.push(name)
        try:
            yield
        finally:
            self.pop()

    def get_seconds(self) -> dict[str, float]:
        """Seconds by stage up to now."""
        if self.on and self._stack:
            self._add_elapsed()
        return dict(self._seconds)

    def _add_elapsed(self) -> None:
        if self.wait is not None:
            self.wait()
        now = time.monotonic()
        self._seconds[self._stack[-1]] += now - self._mark
        self._mark = now
