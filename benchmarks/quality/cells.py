"""A cell of the study: one run in a process of its own, kept where it is there already."""

from __future__ import annotations

import atexit
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from words import SETS

from recsys.errors import DivergenceError
from recsys.sweep.running.launcher_client import TrialLauncher


class Busy(Exception):
    """Another process measures this cell."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from a folder; the lock ends with its process, however that ends.

    Raises:
        Busy: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        yield


@cache
def launcher() -> TrialLauncher:
    """What starts the runs; it ends with this process."""
    begun = TrialLauncher(prepare=True)
    atexit.register(begun.close)
    return begun


def fit(root: Path, folder: Path, data: str, words: list[str], seed: int) -> Path | None:
    """One run in a process of its own, or what is left of it; its folder, None if it diverged.

    The process is a fork of one that has done the imports; the seconds of a run never held them.

    Raises:
        Busy: Another process measures it.
    """
    with alone(folder):
        return _fit(root, folder, data, words, seed)


def _fit(root: Path, folder: Path, data: str, words: list[str], seed: int) -> Path | None:
    """`fit` in a folder that no other process has."""
    asked, kept = json.dumps([*words, f"seed={seed}"]), folder / "words.json"
    if kept.is_file() and kept.read_text() != asked:
        raise SystemExit(f"{folder} was run with other words ({kept}): move it away.")
    kept.write_text(asked)
    diverged = folder / "diverged"
    if diverged.is_file():
        return None
    done = [path.parent for path in folder.glob("*/result.json")]
    if done:
        return done[0]
    begun = [path.parent for path in folder.glob("*/start.json")]
    if begun:
        command = [f"resume={begun[0]}"]
    else:
        command = [*words, f"seed={seed}", f"data.source={SETS[data]}", f"output={folder}"]
        command += [f"data.source.path={root / data}"]
        command += ["tracking.wandb=off", "trainer.accelerator=cpu"]
    log = folder / "output.log"
    print(folder.parent.name, folder.name, flush=True)
    child = launcher().start(command, log, {"HF_HUB_OFFLINE": "1"}, fork=True)
    while (code := child.wait(60)) is None:
        pass
    if code == DivergenceError.code:
        diverged.touch()
        return None
    if code:
        raise SystemExit(f"{folder} ended with the code {code}; {log} says why.")
    (path,) = folder.glob("*/result.json")
    return path.parent


def slug(name: str) -> str:
    """A name as a folder."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
