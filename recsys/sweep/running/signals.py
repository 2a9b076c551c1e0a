"""What a driver does at a signal: it notes it and stops its runs, or ends at once at a second."""

from __future__ import annotations

import signal

from recsys.runtime.signals import HeldSignals


class SignalRecorder(HeldSignals):
    """Notes SIGINT and SIGTERM; a SIGINT after another signal ends the driver at once."""

    def react(self, signum: int, before: int) -> None:
        """Raises KeyboardInterrupt as Python does, where another signal came before."""
        if before and signum == signal.SIGINT:
            raise KeyboardInterrupt
