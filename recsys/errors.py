"""What ends a run with one sentence and no traceback, each kind with an exit code of its own."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from recsys import printable

REMEDIES: Mapping[int, str] = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: "change its rights, or choose another place",
    errno.EPERM: "change its rights, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EISDIR: "a file was to be there; move the folder away, or choose another place",
    errno.ENOTDIR: "a folder was to be there; move the file away, or choose another place",
    errno.ELOOP: "mend the links",
    errno.EFBIG: "raise the limit (ulimit -f), or choose another file system",
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EIO: "copy it to another disk",
    errno.EMFILE: "raise the limit (ulimit -n)",
}
"""What helps where the system refuses a file: mistakes and limits of a user's machine, no bugs."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names the nearest match, if there is one, and all that is known."""
    names = list(known)
    match = difflib.get_close_matches(word, names, n=1)
    hint = f" Did you mean '{match[0]}'?" if match else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."


class RecsysError(Exception):
    """Base of the errors that a user can mend; the message is one sentence with the remedy.

    It may name what stands in a user's data: as a text, nothing in it acts on a terminal.

    Attributes:
        code: Exit code of a command that it ends.
    """

    code: ClassVar[int] = 2

    def __str__(self) -> str:
        """The message on one line."""
        return printable.escape_line(super().__str__())


class ConfigError(RecsysError):
    """A wrong key, choice, value or combination in the configuration."""


class DataError(RecsysError):
    """A file, row or column that cannot be used as it is."""


class UnknownIdError(DataError):
    """An id that no row of a table has.

    The message names the nearest id that there is, which is for the owner of the data alone: who
    answers others says `plain`.

    Args:
        kind: What the id names ("item", "user").
        name: The id.
        known: All ids that there are.
        more: A sentence for the end of the message, which begins with a blank.

    Attributes:
        kind: As given.
        name: As given.
    """

    def __init__(self, kind: str, name: str, known: Sequence[str], more: str = "") -> None:
        super().__init__(kind, name)
        self.kind, self.name, self._known, self._more = kind, name, known, more

    @property
    def plain(self) -> str:
        """The message without another id, on one line."""
        return printable.escape_line(f"No {self.kind} has the id '{self.name}'.{self._more}")

    def __str__(self) -> str:
        """The message on one line; a search through all ids is made only for who reads it."""
        hint = "" if self._known else "; there are none"
        if not self.name.isdecimal():  # a number that looks alike is another one
            near = difflib.get_close_matches(self.name, self._known, n=1, cutoff=0.0)
            hint = f"; the nearest is '{near[0]}'" if near else hint
        return printable.escape_line(f"No {self.kind} has the id '{self.name}'{hint}.{self._more}")

    def add(self, sentence: str) -> UnknownIdError:
        """The same error with another sentence at its end, which begins with a blank."""
        return UnknownIdError(self.kind, self.name, self._known, self._more + sentence)


class DivergenceError(RecsysError):
    """A training whose loss, parameters or validation are of no use any more."""

    code: ClassVar[int] = 3


class OutOfMemoryError(RecsysError):
    """The memory of a device or of the machine that did not suffice."""

    code: ClassVar[int] = 4


OUTSIDE = 5
"""Exit code where nothing is wrong with a run but with what it needs outside of itself."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room."""


class DiskFullError(DataError):
    """A disk or a quota that has no room for what is to be written."""

    code: ClassVar[int] = OUTSIDE


class UnreachableError(ConfigError):
    """A service that does not answer, or does not let in."""

    code: ClassVar[int] = OUTSIDE


def make_error(code: int, message: str) -> RecsysError:
    """The error that ended another process, of the kind that its exit code tells."""
    kinds = {
        kind.code: kind for kind in (ConfigError, DivergenceError, OutOfMemoryError, DiskFullError)
    }
    return kinds.get(code, RecsysError)(message)


def describe_file_error(error: OSError, path: object = None) -> str | None:
    """One sentence for a file that the system refuses, or None for another kind of error.

    It stands where no room of the house has said more: any path of any command may be too long,
    unreadable or full.

    Args:
        error: What was raised.
        path: What it is about, where the error does not say.
    """
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    # Of a rename, the place that was meant; the other name is one of ours.
    name = error.filename2 or error.filename or path
    shown = (
        "a file" if name is None else os.fsdecode(name) if isinstance(name, bytes) else str(name)
    )
    if len(shown) > 120:
        shown = f"{shown[:100]}... ({len(shown)} characters)"
    return f"{shown}: {error.strerror}; {remedy}."


@contextmanager
def raise_file_error() -> Iterator[None]:
    """Turns what the system refuses about a file or folder into one sentence.

    Raises:
        DataError: Of the refusal; every other error passes unchanged.
    """
    try:
        yield
    except OSError as error:
        sentence = describe_file_error(error)
        if sentence is None:
            raise
        kind = DiskFullError if error.errno in FULL else DataError
        raise kind(sentence) from error
