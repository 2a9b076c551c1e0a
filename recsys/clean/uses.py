"""Why something stays: a process has it, other runs build on it, or it is the one in use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recsys.clean.leftovers import FIRST_FILES, HALF_WRITTEN, Leftover
from recsys.config.yaml_file import flatten_keys, read_mapping
from recsys.errors import ConfigError, DataError
from recsys.runs.current import CurrentRun, find_run_folder
from recsys.runs.result_file import read_result
from recsys.runtime.files import CONFIG, CURRENT, PRETRAINING
from recsys.runtime.locks import is_locked
from recsys.runtime.store import Store


def list_locks(folder: Path) -> list[Path]:
    """The files of a folder that its runs, seeds and drivers of a sweep lock while they work."""
    own = [path for name in FIRST_FILES for path in folder.rglob(name)]
    return [*own, *folder.glob("drivers/*")]


def find_reasons(
    rows: Sequence[Leftover], chosen: Sequence[Leftover], outputs: Sequence[Path], store: Store
) -> dict[Path, str]:
    """Why chosen folders have to stay, by their path; what may go is missing.

    A run stays while one that stays is built on it: both may go together.

    Args:
        rows: All that lies there.
        chosen: What is to be removed.
        outputs: Where runs lie.
        store: The cache.

    Raises:
        ConfigError: The file that names the run in use is damaged.
    """
    reasons = {row.path: why for row in chosen if (why := _explain_busy(row, store))}
    for output in outputs:
        current = CurrentRun.read(output)
        for run in [] if current is None else [current.run, *current.previous[-1:]]:
            word = "is" if current is not None and run == current.run else "was, before,"
            for row in chosen:
                if _lies_in(find_run_folder(run, output), row.path):
                    reasons.setdefault(row.path, f"it {word} the run in use by {output / CURRENT}")
    builders = {row.path: list(_list_references(row.path)) for row in rows if row.group != "caches"}
    while True:
        going = {row.path for row in chosen} - set(reasons)
        more = {}
        for path in going:
            for other, targets in builders.items():
                if other not in going and any(_lies_in(each, path) for each in targets):
                    more[path] = f"{other} is built on it"
        if not more:
            return reasons
        reasons |= more


def _explain_busy(row: Leftover, store: Store) -> str:
    """Why a process has it; empty where none does."""
    if row.group == "caches":
        return "a process uses it" if store.is_used(row.path) else ""
    if row.kind == "half-written" and row.age < HALF_WRITTEN:
        return "it may be being written: it is younger than a day"
    try:
        busy = any(map(is_locked, list_locks(row.path)))
    except OSError as error:
        return f"its lock cannot be looked at ({error.strerror})"
    return "a process works in it" if busy else ""


def _list_references(folder: Path) -> Iterator[Path]:
    """What the runs in a folder are built on, outside it: as results and configurations say."""
    texts: set[tuple[str, Path]] = set()
    for name in (CONFIG, PRETRAINING):
        for file in folder.rglob(name):
            texts |= {(text, folder.parent) for text in _list_texts(file)}
    for text, output in texts:
        path = find_run_folder(Path(text), output)
        if path.exists() and not _lies_in(path, folder):
            yield path


def _list_texts(file: Path) -> Iterator[str]:
    """Texts of a configuration that may be paths, and the runs of the result beside it."""
    try:
        values = list(flatten_keys(read_mapping(file)).values())
    except ConfigError:
        values = []  # damaged: what it was built on is not known any more
    for value in values:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and each and len(each) < 1000 and "\0" not in each:
                yield each
    try:
        result = read_result(file.parent)
    except (FileNotFoundError, DataError, json.JSONDecodeError):
        return
    yield from _list_sources(result.get("built_on", []))


def _list_sources(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The folders of runs that a result names, and of those that they name."""
    for row in rows:
        yield str(row.get("run", ""))
        below = row.get("built_on", [])
        yield from _list_sources(below if isinstance(below, list) else [])


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it."""
    return path.resolve().is_relative_to(folder.resolve())
