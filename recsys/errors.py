"""What ends a run with one sentence and no traceback, each kind with an exit code of its own."""

from __future__ import annotations

from typing import ClassVar


class RecsysError(Exception):
    """Base of the errors that a user can mend; the message is one sentence with the remedy.

    Attributes:
        code: Exit code of a command that it ends.
    """

    code: ClassVar[int] = 2


class ConfigError(RecsysError):
    """A wrong key, choice, value or combination in the configuration."""


class DataError(RecsysError):
    """A file, row or column that cannot be used as it is."""


class Diverged(RecsysError):
    """A training whose loss, parameters or validation are of no use any more."""

    code: ClassVar[int] = 3


class OutOfMemory(RecsysError):
    """The memory of a device or of the machine that did not suffice."""

    code: ClassVar[int] = 4
