"""SIGTERM and SIGINT while a command works: a run saves its state first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from recsys.runtime.ranks import get_rank, leaves_alone


class Interrupted(SystemExit):
    """Ends the process after a signal, with exit code 128 + signal (0 on ranks other than 0).

    A launcher that sees a rank end with another code kills the first one.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum if get_rank() == 0 else 0)
        self.signum = signum
        self.name = signal.Signals(signum).name


class HeldSignals:
    """Takes SIGTERM and SIGINT while a block lasts; who had them before has them again after it.

    Args:
        more: Further signals that are taken.

    Attributes:
        received: The last signal that came, or 0.
    """

    def __init__(self, more: Sequence[signal.Signals] = ()) -> None:
        self.received = 0
        self._signals = {signal.SIGTERM, signal.SIGINT, *more}
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        # Python lets only the main thread handle signals; elsewhere the host program does.
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.getsignal(s) for s in self._signals}
        self.arm()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def arm(self) -> None:
        """Takes the signals (again: a Trainer puts its own handler in between)."""
        for signum in self._before:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        before, self.received = self.received, signum
        self.react(signum, before)

    def react(self, signum: int, before: int) -> None:
        """Does what a signal asks for, which is noted already.

        Args:
            signum: The signal.
            before: The one that came before it, or 0.
        """
        raise NotImplementedError


class SignalHandler(HeldSignals):
    """Holds SIGTERM and SIGINT while a run lasts.

    While it trains, a signal is only noted: the run leaves when its state can be saved. At other
    times it leaves at once. A second SIGINT leaves at once in any case.

    Args:
        more: Further signals that are taken.

    Attributes:
        training: Whether a signal waits for the next whole step.
    """

    def __init__(self, more: Sequence[signal.Signals] = ()) -> None:
        super().__init__(more)
        self.training = False

    @contextmanager
    def raise_interruption(self) -> Iterator[None]:
        """Leaves where a signal came and a library made another error of that.

        Raises:
            Interrupted: In place of the error; while a run trains, no signal raises and errors
                pass.
        """
        try:
            yield
        except Exception:
            if self.received and not self.training and _may_leave():
                raise Interrupted(self.received) from None
            raise

    def react(self, signum: int, before: int) -> None:
        """Leaves at once, or when the step that is under way is whole.

        Raises:
            Interrupted: To leave at once; ranks that the first one has started are ended by it.
        """
        again = before == signum == signal.SIGINT
        if _may_leave() and (again or not self.training):
            raise Interrupted(signum)


def _may_leave() -> bool:
    """Whether a signal ends this process, or the first rank does."""
    return get_rank() == 0 or leaves_alone()
