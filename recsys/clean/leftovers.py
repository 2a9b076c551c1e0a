"""What lies on the disk: runs, folders of the cache, and what stopped halfway."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys.runs.folder import OUTPUTS
from recsys.runtime.files import CONFIG, PREPARED, PRETRAINING, RESULT, SEEDS, SWEEP
from recsys.runtime.store import KEY_FILE, Store

Group = Literal["runs", "caches", "unfinished"]

GROUPS: dict[Group, str] = {
    "runs": "finished runs, folders of seeds, sweeps, pretrainings and the data of refreshes",
    "caches": "what is computed once and shared; it is built again when it is asked for",
    "unfinished": "runs without a result, and files half-written",
}
FIRST_FILES = (SEEDS, SWEEP, PRETRAINING, CONFIG)
"""By which a folder is known, those first that hold others."""

HALF_WRITTEN = 86_400.0
"""Seconds after which a file that nobody locks counts as left behind, not as being written."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_DEPTH = 3  # a run may lie in a folder that the user gave it: runs/STUDY/METHOD/RUN


@dataclass(frozen=True)
class Leftover:
    """A folder or file that may be removed.

    Attributes:
        path: Where it lies.
        group: Which word of the command names it.
        kind: What it is, for the table.
        size: Bytes of the files in it.
        used: When it was used last, in seconds since 1970: of a run, when a file of it was
            written; of the cache, when a process asked for it.
    """

    path: Path
    group: Group
    kind: str
    size: int
    used: float

    @property
    def age(self) -> float:
        """Seconds since it was used."""
        return max(time.time() - self.used, 0.0)


def find_leftovers(outputs: Sequence[Path], store: Store) -> list[Leftover]:
    """All that may be removed, the one first that was not used for longest.

    Args:
        outputs: Where runs lie.
        store: The cache.
    """
    rows = [row for output in outputs for row in _find_runs(output, _DEPTH)]
    rows += [_describe_cache(path) for path in store.list_folders()]
    unique = {row.path.resolve(): row for row in rows}
    return sorted(unique.values(), key=lambda row: (row.used, str(row.path)))


def list_outputs() -> tuple[str, ...]:
    """Where commands put runs, unless another place is named."""
    return tuple(OUTPUTS.values())


def _find_runs(folder: Path, depth: int) -> Iterator[Leftover]:
    """The runs in a folder and below, each folder of seeds and sweep as one."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_symlink():
            continue
        if _TEMPORARY.fullmatch(path.name):
            yield _describe(path, "unfinished", "half-written")
        elif path.is_dir():
            first = next((name for name in FIRST_FILES if (path / name).is_file()), None)
            if first is not None:
                yield _describe_run(path, first)
            elif (path / PREPARED).is_file():
                yield _describe(path, "runs", "prepared data")
            elif depth > 1:
                yield from _find_runs(path, depth - 1)


def _describe_run(path: Path, first: str) -> Leftover:
    """A folder that a command made, by its first file."""
    if first == SWEEP:
        return _describe(path, "runs", "sweep")
    if first == SEEDS:
        runs = [file.parent for file in path.glob(f"*/{CONFIG}")]
        whole = bool(runs) and all((run / RESULT).is_file() for run in runs)
        return _describe(path, "runs" if whole else "unfinished", f"{len(runs)} seeds")
    kind = "pretraining" if first == PRETRAINING else "run"
    whole = (path / RESULT).is_file()
    return _describe(path, "runs" if whole else "unfinished", kind)


def _describe_cache(path: Path) -> Leftover:
    """A folder of the cache, or one half-built."""
    if path.name.startswith("."):
        return _describe(path, "unfinished", "half-built")
    size, written = _measure(path)
    # Whoever asks for a folder marks so by the time of reading of its key; one that has lost its
    # key is damaged, and as old as its files.
    with suppress(OSError):
        written = (path / KEY_FILE).stat().st_atime
    return Leftover(path, "caches", path.parent.name, size, written)


def _describe(path: Path, group: Group, kind: str) -> Leftover:
    return Leftover(path, group, kind, *_measure(path))


def _measure(path: Path) -> tuple[int, float]:
    """Bytes of the files of a folder, and when one was written last; links are not followed."""
    files = [Path(where, name) for where, _, names in os.walk(path) for name in names]
    size, newest = 0, 0.0
    for file in files or [path]:
        with suppress(OSError):  # another process takes it away
            stat = file.lstat()
            size += 0 if file.is_dir() else stat.st_size
            newest = max(newest, stat.st_mtime)
    return size, newest
