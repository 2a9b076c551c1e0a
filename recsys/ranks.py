"""An error of one rank is the end of all: how the first one learns of it, and tells it.

A launcher that sees a rank leave with an error kills the first one, which could then neither close
its log nor say why. So the others leave a note in the run's folder and go quietly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recsys.data.files import write_atomic
from recsys.errors import ConfigError, Diverged, OutOfMemory, RecsysError

NOTE = "rank_error.json"

GRACE = 10.0
"""Seconds in which the first rank may end by itself after another one has left its note."""


def leave_note(folder: Path, error: RecsysError) -> None:
    """Tells the first rank what ended another one."""
    write_atomic(folder / NOTE, json.dumps({"code": error.code, "message": str(error)}))


def clear_note(folder: Path) -> None:
    """Forgets the note of an attempt before."""
    (folder / NOTE).unlink(missing_ok=True)


def read_note(folder: Path) -> RecsysError | None:
    """What ended another rank, or None."""
    path = folder / NOTE
    if not path.is_file():
        return None
    note = json.loads(path.read_text(encoding="utf-8"))
    kinds = {kind.code: kind for kind in (ConfigError, Diverged, OutOfMemory)}
    return kinds[note["code"]](note["message"])


@contextmanager
def others_told(folder: Path) -> Iterator[None]:
    """Puts what ended another rank in place of the broken connection that the first one sees.

    Raises:
        RecsysError: As in the note; where none comes, the error passes unchanged.
    """
    try:
        yield
    except RuntimeError:
        until = time.monotonic() + 5
        while (note := read_note(folder)) is None and time.monotonic() < until:
            time.sleep(0.1)
        if note is None:
            raise
        raise note from None


class Lookout:
    """Ends the first rank where it waits for a rank that has left a note, and hears nothing.

    A thread, since a wait for a device cannot be interrupted.

    Args:
        folder: Of the run.
        close: Closes the log, given the error.
        ranks: The processes of the other ranks by now.
    """

    def __init__(
        self,
        folder: Path,
        close: Callable[[RecsysError], None],
        ranks: Callable[[], Sequence[subprocess.Popen[bytes]]],
    ) -> None:
        self.folder, self.close, self.ranks = folder, close, ranks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Lookout:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            note = read_note(self.folder)
            if note is None:
                continue
            if self._ended.wait(GRACE):
                return
            print(f"error: {note}", file=sys.stderr, flush=True)
            self.close(note)
            for process in self.ranks():
                process.kill()
            os._exit(note.code)
