"""What ends a run with one sentence and no traceback, each kind with an exit code of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

_SYSTEM: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the quota is full; free some space or choose another folder",
    errno.EFBIG: "it would be larger than this process may make a file (ulimit -f) or the disk can "
    "hold; raise the limit or choose another folder",
    errno.EACCES: "this user may not; change its permissions or choose another path",
    errno.EPERM: "this user may not; change its permissions or choose another path",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "a name in it is longer than the system allows, mostly 255 bytes; choose a "
    "shorter one",
    errno.ENOTDIR: "a part of it is a file and no folder; choose another path",
    errno.EISDIR: "it is a folder and no file; name a file in it",
    errno.ELOOP: "its links lead in a circle; choose another path",
    errno.EIO: "the disk reports an error; copy it to another one",
    errno.EMFILE: "this process has too many files open; raise the limit (ulimit -n)",
}
"""What the system refuses, by its number: no fault of a command, and told with the remedy."""


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


def system_sentence(error: OSError, path: object = None) -> str | None:
    """What the system refused, with the remedy; None where that is not known to be its refusal.

    Args:
        error: As Python raised it.
        path: What it is about, where the error does not say.
    """
    name = error.filename if error.filename is not None else path
    reason = _SYSTEM.get(error.errno or 0)
    if reason is None or name is None or isinstance(name, int):
        return None
    shown = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    shown = shown if len(shown) <= 200 else f"{shown[:100]}...{shown[-60:]}"
    return f"{shown}: {reason}"


@contextmanager
def system_told() -> Iterator[None]:
    """Turns what the system refuses about a file or folder into one sentence.

    Raises:
        DataError: Of the refusal; every other error passes unchanged.
    """
    try:
        yield
    except OSError as error:
        sentence = system_sentence(error)
        if sentence is None:
            raise
        raise DataError(f"{sentence}.") from error
