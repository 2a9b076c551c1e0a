"""An error of one rank is the end of all: how the first one learns of it, and tells it.

A launcher that sees a rank leave with an error kills the first one, which could then neither close
its log nor say why. So the others leave a note in the run's folder and go quietly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import RecsysError, make_error
from recsys.runtime.files import RANK_ERROR, write_atomic

PACE = 0.5
"""Seconds between two looks at the other ranks."""

STOPPED_TOLD = 10.0
"""Seconds that a rank may be stopped before that is told."""

STOPPED_LIMIT = 300.0
"""Seconds that a rank may be stopped before the run ends."""

GRACE = 10.0
"""Seconds in which the first rank may end by itself after another one has left its note."""


def write_rank_error(folder: Path, error: RecsysError) -> None:
    """Tells the other ranks what ended one of them."""
    write_atomic(folder / RANK_ERROR, json.dumps({"code": error.code, "message": str(error)}))


def clear_rank_error(folder: Path) -> None:
    """Forgets the note of an attempt before."""
    (folder / RANK_ERROR).unlink(missing_ok=True)


def read_rank_error(folder: Path) -> RecsysError | None:
    """What ended another rank, or None."""
    path = folder / RANK_ERROR
    if not path.is_file():
        return None
    note = json.loads(path.read_text(encoding="utf-8"))
    return make_error(note["code"], note["message"])


@contextmanager
def raise_rank_error(folder: Path) -> Iterator[None]:
    """Puts what ended another rank in place of the broken connection that the first one sees.

    Raises:
        RecsysError: As in the note; where none comes, the error passes unchanged.
    """
    try:
        yield
    except RuntimeError:
        until = time.monotonic() + 5
        while (note := read_rank_error(folder)) is None and time.monotonic() < until:
            time.sleep(0.1)
        if note is None:
            raise
        raise note from None


class FirstRankWatcher:
    """Ends another rank where the first one has left a note: for ranks of another launcher.

    Nobody else ends it: it would wait in a collective for as long as that may take.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ended = threading.Event()

    def __enter__(self) -> FirstRankWatcher:
        threading.Thread(target=self._poll, daemon=True).start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Has this rank leave quietly where it sees no more than a connection that has broken.

        Raises:
            SystemExit: The first one has ended, and has said why.
        """
        self._ended.set()
        if not isinstance(error, RuntimeError):
            return
        until = time.monotonic() + GRACE
        while read_rank_error(self.folder) is None:
            if time.monotonic() > until:
                return
            time.sleep(0.1)
        raise SystemExit(0) from None

    def _poll(self) -> None:
        while not self._ended.wait(PACE):
            if read_rank_error(self.folder) is not None:
                if not self._ended.wait(GRACE):
                    os._exit(0)
                return


@dataclass(frozen=True)
class LostRank:
    """A rank that will not come back, in a sentence.

    Attributes:
        message: What became of it, with the remedy.
        code: Exit code of the run that it ends: 128 + signal where one ended the rank.
    """

    message: str
    code: int


class StoppedRankTimer:
    """How long each rank has been stopped (SIGSTOP, a debugger), by looks at a steady pace.

    Looks are counted and no clock is read: where the whole run was stopped, nobody looked.

    Args:
        pace: Seconds between two looks.
        tell: Prints a sentence.
    """

    def __init__(self, pace: float, tell: Callable[[str], None]) -> None:
        self.pace, self.tell = pace, tell
        self._looks: dict[int, int] = {}

    def poll(self, number: int, pid: int) -> LostRank | None:
        """Looks at one rank.

        Args:
            number: Of the rank.
            pid: Its process.

        Returns:
            What is to be said where it has been stopped for too long, else None.
        """
        before = self._looks.get(pid, 0)
        now = self._looks[pid] = before + 1 if is_stopped(pid) else 0
        who = f"rank {number} (process {pid})"
        if before * self.pace < STOPPED_TOLD <= now * self.pace:
            self.tell(f"{who} is stopped, and the run waits for it; continue it: kill -CONT {pid}")
        if now * self.pace < STOPPED_LIMIT:
            return None
        return LostRank(f"{who} has been stopped for {STOPPED_LIMIT / 60:.0f} minutes", 1)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped: by SIGSTOP, a terminal or a debugger."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if stat.is_file():
            state = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        else:
            asked = ["ps", "-o", "stat=", "-p", str(pid)]
            state = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    except (OSError, IndexError):
        return False  # it has ended meanwhile
    return state[:1] in ("T", "t")


def describe_end(number: int, process: subprocess.Popen[bytes]) -> LostRank | None:
    """What ended a rank without a note, or None where it runs or left as it should."""
    code = process.poll()
    if not code:
        return None
    who = f"rank {number} (process {process.pid})"
    if code > 0:
        return LostRank(f"{who} ended with code {code}, for the reason that it has printed", 1)
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    why = ", which the system sends where memory runs out" if -code == signal.SIGKILL else ""
    return LostRank(f"{who} was killed by {name}{why}", 128 - code)


def disarm_launcher() -> None:
    """Keeps Lightning's observer of child processes from killing this process.

    It looks every five seconds, and where it is the first to see that a rank is gone, it kills the
    first one before that can say why. It ends by itself where it has no process to observe.
    """
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            thread._child_processes = []  # type: ignore[attr-defined]


class RankErrorWatcher:
    """Ends the first rank where it waits for a rank that is gone, and hears nothing.

    That is one that has left a note, one that was killed, and one that has been stopped for long.
    A thread, since a wait for a device cannot be interrupted.

    Args:
        folder: Of the run.
        close: Closes the log, given the error.
        ranks: The processes of the other ranks by now.
    """

    def __init__(
        self,
        folder: Path,
        close: Callable[[BaseException], None],
        ranks: Callable[[], Sequence[subprocess.Popen[bytes]]],
    ) -> None:
        self.folder, self.close, self.ranks = folder, close, ranks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> RankErrorWatcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _poll(self) -> None:
        waits = StoppedRankTimer(PACE, lambda line: print(line, file=sys.stderr, flush=True))
        while not self._ended.wait(PACE):
            disarm_launcher()
            note = read_rank_error(self.folder)
            if note is not None:
                if not self._ended.wait(GRACE):
                    self._end(note, str(note), note.code)
                return
            for number, process in enumerate(self.ranks(), start=1):
                lost = describe_end(number, process) or waits.poll(number, process.pid)
                # Its note may have come between the two looks.
                if lost is None or read_rank_error(self.folder) is not None:
                    continue
                self._end(
                    RecsysError(lost.message),
                    f"{lost.message}; go on with: python -m recsys.fit resume={self.folder}",
                    lost.code,
                )
                return

    def _end(self, error: RecsysError, message: str, code: int) -> None:
        """Says why, closes the log, and ends all ranks at once."""
        print(f"error: {message}", file=sys.stderr, flush=True)
        for process in self.ranks():
            process.kill()
        self.close(error)
        os._exit(code)
