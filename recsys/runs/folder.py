"""Runs that stop and go on: their folders, what ranks share, and the signals that end a run.

Only the standard library and the configuration are imported here, so that a wrong word is refused
before torch is loaded.
"""

from __future__ import annotations

import glob
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from recsys.config.compose import RunConfig, nearest, read_config
from recsys.config.pretraining import PretrainConfig
from recsys.errors import ConfigError, DataError
from recsys.runs.state import RunState
from recsys.runtime.files import CONFIG, PRETRAINING, RESULT, write_atomic
from recsys.runtime.locks import acquire_lock, is_locked
from recsys.words import drop_words, split_words

T = TypeVar("T")

OUTPUTS = {CONFIG: RunConfig.output, PRETRAINING: PretrainConfig.output}
"""Where folders with such a first file lie, unless something else is said."""

NEUTRAL = (
    "checkpoint.every_minutes",
    "checkpoint.requeue",
    "trainer.devices",
    "trainer.nodes",
    "encoder.cache_place",
    "trainer.log_every",
    "tracking.wandb",
    "tracking.project",
    "tracking.group",
    "tracking.tags",
    "tracking.name",
    "tracking.kind",
    "tracking.tensorboard",
    "tracking.checkpoint_artifact",
)
"""Keys that may change when a run goes on: none of them alters a weight or a metric.

The number of processes does, by rounding and by the dropout that is drawn, and the run says so.
"""


def find_last_run(output: str, complete: bool, file: str = CONFIG) -> Path:
    """The newest run in a folder.

    Args:
        output: Where runs lie.
        complete: Ask for one with a result, or for one without that no process is busy with.
        file: The first file of its folder.

    Raises:
        ConfigError: There is none.
    """
    places = [f"*/{file}"]
    if complete:
        places.append(f"*/*/{file}")  # runs of several seeds lie in a folder together
    runs = [path.parent for place in places for path in Path(output).glob(place)]
    fitting = [run for run in runs if (run / RESULT).is_file() is complete]
    if not complete:
        fitting = [run for run in fitting if not is_busy(run, file)]
    if not fitting:
        kind = "complete run" if complete else "run to go on with"
        raise ConfigError(f"last: there is no {kind} in {output}.")
    return _choose_newest(fitting, file)


def find_matching_run(pattern: str) -> tuple[Path, int]:
    """The newest complete run that a glob names, and how many complete ones it names.

    Args:
        pattern: As in `runs/lora*`; a folder of several seeds stands for the runs in it.

    Raises:
        ConfigError: It names none.
    """
    runs: list[Path] = []
    for path in map(Path, glob.glob(pattern)):
        own = [path] if (path / CONFIG).is_file() else [p.parent for p in path.glob(f"*/{CONFIG}")]
        runs += [run for run in own if (run / RESULT).is_file()]
    if not runs:
        raise ConfigError(f"run={pattern}: no complete run has such a name; see what is there.")
    return _choose_newest(runs), len(runs)


def find_member_runs(word: str) -> list[str]:
    """The runs that a word of a list of runs stands for.

    Args:
        word: The folder of a run, which stands for itself, as does one that is not there; a folder
            that holds runs, such as that of several seeds, for all of them; a glob for the newest
            of those that it names which is complete.

    Raises:
        ConfigError: The glob names no complete run.
    """
    if Path(word).exists() or not glob.has_magic(word):
        inside = [] if (Path(word) / CONFIG).is_file() else _list_inside(Path(word))
        return [str(run) for run in inside] or [word]
    groups = []
    for path in map(Path, glob.glob(word)):
        runs = [path] if (path / CONFIG).is_file() else _list_inside(path)
        if runs and all((run / RESULT).is_file() for run in runs):
            groups.append(runs)
    if not groups:
        raise ConfigError(f"{word} names no complete run; see what is there.")
    newest = _choose_newest([_choose_newest(runs) for runs in groups])
    (chosen,) = (runs for runs in groups if newest in runs)
    return [str(run) for run in chosen]


def _list_inside(folder: Path) -> list[Path]:
    """The runs in a folder of several, by name."""
    return sorted(file.parent for file in folder.glob(f"*/{CONFIG}"))


def _choose_newest(runs: Sequence[Path], file: str = CONFIG) -> Path:
    return max(runs, key=lambda run: ((run / file).stat().st_mtime, run.name))


def make_folder(
    output: str, name: str, content: str | Callable[[Path], str], file: str = CONFIG
) -> Path:
    """Makes a folder of its own with its first file; an existing one is never used again.

    Args:
        output: Where it is made.
        name: How its name begins.
        content: What the file says, or what makes that of the folder's path.
        file: The file, by which the folder is known.

    Raises:
        DataError: The folder cannot be made, or the disk is full; then there is none.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(output) / f"{name}-{stamp}-{secrets.token_hex(2)}"
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{path}: the result folder cannot be made ({error.strerror}).") from None
    try:
        write_atomic(path / file, content if isinstance(content, str) else content(path))
    except DataError:
        path.rmdir()
        raise
    return path


@contextmanager
def lock_folder(folder: Path, file: str = CONFIG) -> Iterator[None]:
    """Keeps a folder to this process; the system lets go of it however the process ends.

    The lock is on the folder's first file, which is never written again.

    Args:
        folder: Of a run, or of several seeds.
        file: Its first file.

    Raises:
        ConfigError: The folder is no run's, cannot be written, or another process has it.
    """
    try:
        held = (folder / file).open("r+b")
    except OSError as error:
        raise ConfigError(f"{folder}: the run cannot be opened ({error.strerror}).") from None
    with held:
        for wait in (0.1, 0.1, None):  # a look by `is_busy` lasts no longer
            if acquire_lock(held):
                break
            if wait is None:
                raise _make_running_error(folder)
            time.sleep(wait)
        yield


def is_busy(folder: Path, file: str = CONFIG) -> bool:
    """Whether a process trains or tests in a run's folder, whose first file is locked then."""
    return is_locked(folder / file)


def _make_running_error(folder: Path) -> ConfigError:
    return ConfigError(f"{folder}: the run is still running; wait for its end, or stop it first.")


def reopen(name: str, words: Sequence[str]) -> tuple[RunConfig, Path]:
    """The run that `resume=name` means; see `reopen_root`."""
    return reopen_root(name, words, CONFIG, read_config)


def reopen_root(
    name: str, words: Sequence[str], file: str, read: Callable[[Path, Sequence[str]], T]
) -> tuple[T, Path]:
    """What `resume=name` means, of a run or of a pretraining.

    Args:
        name: Its folder, or `last`.
        words: The other words of the command; only neutral ones, and `output` with `last`.
        file: The first file of its folder.
        read: Reads that file, amended by words.

    Returns:
        Its stored configuration with the neutral changes, and its folder.

    Raises:
        ConfigError: The folder holds no unfinished run or one that still runs, or a word would
            change its outcome.
    """
    changes = split_words(words)
    output = changes.pop("output", OUTPUTS[file])
    for key in changes:
        if key not in NEUTRAL:
            raise ConfigError(
                f"{key} cannot change when a run goes on; start a new run for that."
                f"{nearest(key, NEUTRAL)}"
            )
    folder = find_last_run(output, complete=False, file=file) if name == "last" else Path(name)
    run = read(folder / file, drop_words(words, ["output"]))
    if (folder / RESULT).is_file():
        raise ConfigError(f"{folder}: the run is finished; start a new one to train again.")
    _check_unchanged(folder, file)
    if is_busy(folder, file):  # told before torch is loaded; the lock itself comes later
        raise _make_running_error(folder)
    return run, folder


def compute_config_checksum(folder: Path, file: str = CONFIG) -> str:
    """SHA-256 of the configuration that lies in a run's folder, in its first file."""
    return hashlib.sha256((folder / file).read_bytes()).hexdigest()


def _check_unchanged(folder: Path, file: str) -> None:
    """Refuses to go on under another configuration than the one that the run began with.

    Raises:
        ConfigError: The file was edited; its weights would be of two configurations.
    """
    start = RunState.read(folder)
    if start is not None and start.config and start.config != compute_config_checksum(folder, file):
        raise ConfigError(
            f"{folder / file} has changed since the run began, so that what is trained would be "
            "of two configurations; undo the change, or start a new run."
        )


def check_is_run(key: str, folder: str, else_: str = "") -> None:
    """Refuses what is no run's folder, where a key of another run names one.

    Args:
        key: The key, for the sentence.
        folder: What it names.
        else_: What it may be in place of a folder, as in "tfidf or ".

    Raises:
        ConfigError: It holds no configuration.
    """
    inner = sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG}"))
    if not (Path(folder) / CONFIG).is_file() and inner:
        raise ConfigError(
            f"{key}={folder} holds several runs; name one of them, such as {inner[0]}."
        )
    if not (Path(folder) / CONFIG).is_file():
        raise ConfigError(
            f"{key}={folder} is no run: {CONFIG} is missing there; give {else_}the folder that "
            "recsys.fit printed."
        )
