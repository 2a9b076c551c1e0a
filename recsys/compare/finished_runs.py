"""Finished runs as they lie on disk."""

from __future__ import annotations

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.config.compose import Node, complete_node, make_node, read_config
from recsys.errors import ConfigError, DataError
from recsys.runs.result_file import ZERO_SHOT, read_result
from recsys.runtime.files import CASES, CONFIG, RESULT

SAME_CASES = ("case", "user", "target", "size", "cold", "positives")
"""Columns of `cases.parquet` that belong to the evaluation, not to what was ranked by it."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: Where it lies, as it was named.
        config: Its resolved configuration as plain values, axis nodes with their names.
        result: What `result.json` holds.
        cases: A row a test case, in the order of the case numbers.
    """

    folder: Path
    config: Node
    result: Node
    cases: pl.DataFrame

    @property
    def seed(self) -> int:
        """Of weights, queries and negatives.

        Of a run that takes no step itself and builds on runs that did, the lowest of theirs.
        """
        theirs = [int(row["seed"]) for row in list_sources(self.built_on) if _has_seed(row)]
        return min(theirs) if theirs and not self.trains else int(self.config["seed"])

    @property
    def built_on(self) -> list[Node]:
        """What the result says of the runs that this one builds on."""
        return list(self.result.get("built_on", []))

    @property
    def varies(self) -> bool:
        """Whether another seed could give another result."""
        return (self.trains and not self.untouched) or any(
            _has_seed(row) for row in list_sources(self.built_on)
        )

    @property
    def trains(self) -> bool:
        """Whether the architecture trains; a configuration without tuning says no."""
        return "tuning" in self.config

    @property
    def untouched(self) -> bool:
        """Whether no step was taken from an encoder as it is, so that no seed has a part in it.

        A head that begins at random has its seed: the start is then no zero-shot one.
        """
        return _is_untouched(self.result.get("validation", {}).get("steps"), self.result["floors"])


def _is_untouched(steps: object, floors: Collection[str]) -> bool:
    """Whether no step was taken, from a start without heads that begin at random."""
    return steps == 0 and ZERO_SHOT in floors


def _has_seed(row: Node) -> bool:
    """Whether a run that another builds on trained, by what is said of it there."""
    trains = "tuning" in row.get("config", {})
    return trains and not _is_untouched(row.get("steps"), row.get("floors", []))


def list_sources(built_on: Sequence[Node]) -> list[Node]:
    """All runs that a run builds on, directly or by way of others, each once.

    Args:
        built_on: What its result says of those that it builds on directly.
    """
    rows: dict[str, Node] = {}
    for row in built_on:
        for each in (row, *list_sources(row.get("built_on", []))):
            rows.setdefault(str(each["sha256"]), each)
    return list(rows.values())


def find_runs(words: Sequence[str]) -> list[Path]:
    """The run folders that words name, each once, in the given order.

    Args:
        words: Folders of runs, folders that hold runs or folders of seeds, or globs of these. A
            plain file, and a folder within a run, are passed over beside words that name runs: a
            glob that the shell has written out names those as well.

    Raises:
        ConfigError: A word names no run.
    """
    found: dict[Path, Path] = {}
    folders = [
        word for word in words if not Path(word).is_file() and not _is_inside_run(Path(word))
    ]
    for word in folders or words:
        # A folder that is there is no glob, whatever signs its name has.
        named = [word] if Path(word).exists() else sorted(glob.glob(word))
        runs: list[Path] = []
        for path in map(Path, named):
            if (path / CONFIG).is_file():
                runs.append(path)
            else:  # runs of several seeds lie in a folder together
                inside = [*path.glob(f"*/{CONFIG}"), *path.glob(f"*/*/{CONFIG}")]
                runs += sorted(file.parent for file in inside)
        if not runs:
            raise ConfigError(
                f"{word} names no run: no config.yaml is there; give the folders that "
                "recsys.fit printed, or a glob such as 'runs/*'."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _is_inside_run(path: Path) -> bool:
    """Whether a folder is one of those in a run, such as its checkpoints."""
    return path.is_dir() and not (path / CONFIG).is_file() and (path.parent / CONFIG).is_file()


def read_run(folder: Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
        ConfigError: It is not finished, or its configuration cannot be read.
        DataError: One of its files is damaged.
    """
    config = make_node(read_config(folder / CONFIG))
    path = folder / RESULT
    if not path.is_file():
        raise ConfigError(
            f"{folder}: the run is not finished, result.json is missing; finish it with: "
            f"python -m recsys.fit resume={folder}"
        )
    if not config["evaluation"]["test"]:
        raise ConfigError(
            f"{folder}: the run only validated (evaluation.test=false), and runs are compared by "
            "their tests; run fit again with evaluation.test=true."
        )
    try:
        result = read_result(folder)
        complete = all(isinstance(result[k], dict) for k in ("test", "floors", "protocol", "cost"))
        complete = complete and {"fingerprint", "split", "roles_sha256"} <= set(result["data"])
    except (KeyError, TypeError):
        complete = False
    if not complete:
        raise DataError(f"{path} is damaged or of another version; run fit again.")
    if "built_on" in result:
        result["built_on"] = [_complete_source(row) for row in result["built_on"]]
    return FinishedRun(folder, config, result, _read_cases(folder / CASES))


def _complete_source(row: Node) -> Node:
    """What is said of a run that another builds on, with keys that its version did not know."""
    built_on = [_complete_source(each) for each in row.get("built_on", [])]
    config = {"config": complete_node(row["config"])} if "config" in row else {}
    return {**row, **config, "built_on": built_on}


def _read_cases(path: Path) -> pl.DataFrame:
    """The rows of a file of cases."""
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError):
        raise DataError(f"{path} is missing or damaged; run fit again.") from None
    lacking = {*SAME_CASES, "rank", "ties", "history"} - set(frame.columns)
    if lacking or not len(frame):
        what = f"lacks the column {min(lacking)}" if lacking else "holds no case"
        raise DataError(f"{path} {what}; run fit again.")
    return frame.sort("case")
