"""What the command does, as functions: a sweep to its end, or on from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from statistics import fmean

from recsys.config.shipped import make_absolute
from recsys.config.yaml_file import write_words
from recsys.errors import ConfigError, make_error, nearest
from recsys.runtime.files import write_atomic
from recsys.sweep import parsing, record
from recsys.sweep.definition import SweepDefinition
from recsys.sweep.record import SweepRecord
from recsys.words import drop_words, find_value, get_key, split_words

COMMAND = "command.json"
"""The words of the command, in the sweep's folder, by which `resume=` goes on."""

DATABASE = "database.txt"
"""What the folder has where its trials are in a database."""


@dataclass(frozen=True)
class SweepResult:
    """What `run_sweep` returns.

    Attributes:
        folder: Of the sweep; its page is report.html.
        sweep: All that was found.
    """

    folder: Path
    sweep: SweepRecord

    @property
    def commands(self) -> Mapping[str, str]:
        """By method, what trains its best trial again, for a shell."""
        return self.sweep.commands

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """By method, the mean of each test metric over its closing runs, as a share."""
        return {
            method: {name: fmean(each[name] for each in runs) for name in runs[0]}
            for method, runs in self.sweep.tests.items()
            if runs
        }

    def __repr__(self) -> str:
        """Folder and methods."""
        return f"SweepResult({str(self.folder)!r}, methods={list(self.sweep.methods)})"

    def _repr_html_(self) -> str:
        """What each method's search found."""
        from recsys.compare.report import table
        from recsys.sweep.report import tables

        return "\n".join(table.render_html(tables.make_method_table(self.sweep)))


def run_sweep(*words: str, **keys: object) -> SweepResult:
    """Runs a sweep to its end, or goes on with it, and prints what the command prints.

    Args:
        *words: Words of `python -m recsys.sweep`, such as `"optimizer.clip=2"`.
        **keys: Further ones by key, as in `sweep="lr_regularization", trials=32`.

    Returns:
        The sweep's folder and what it found.

    Raises:
        RecsysError: A word is wrong, a method has no complete trial, or a closing run failed; what
            was printed says why.
        KeyboardInterrupt: It was interrupted; the same call goes on.
    """
    asked = write_words(words, {k: v for k, v in keys.items() if k != "methods"})
    if "methods" in keys:  # a list of names
        asked += write_words([], {"methods": keys["methods"]}, listed=",")
    asked = expand_resume(asked)
    code = run_to_end(asked)
    if code == 128 + SIGINT:
        raise KeyboardInterrupt
    folder = parsing.read_definition(asked).folder
    if code:
        raise make_error(
            code, f"{folder}: the sweep ended with code {code}; what it printed says why."
        )
    return SweepResult(folder, record.read_record(folder))


def find_newest(output: str, name: str | None = None) -> Path:
    """The newest sweep in a folder.

    Args:
        output: Where sweeps lie.
        name: Of the sweep's file; None for any.

    Raises:
        ConfigError: There is none.
    """
    paths = sorted(Path(output).glob(f"*/{COMMAND}"), key=lambda path: path.stat().st_mtime)
    folders = {path.parent: path.parent.name.rpartition("-")[0] for path in paths}
    fitting = [folder for folder, own in folders.items() if name in (None, own)]
    if not fitting and name is not None:
        raise ConfigError(
            f"'{name}' is neither a folder nor a sweep in {output}."
            f"{nearest(name, dict.fromkeys(folders.values()))}"
        )
    if not fitting:
        raise ConfigError(f"there is no sweep in {output}; name its folder.")
    return fitting[-1]


def find_sweep(word: str, output: str = "runs") -> Path:
    """The folder of a sweep.

    Args:
        word: The folder, `last` for the newest sweep, or a sweep's name for the newest of that.
        output: Where those lie.

    Raises:
        ConfigError: There is none.
    """
    if word == "last":
        return find_newest(output)
    if Path(word).exists() or Path(word).name != word:
        return Path(word)
    return find_newest(output, word)


def expand_resume(words: Sequence[str]) -> list[str]:
    """The words of the command that a folder was made with, amended by further ones.

    Raises:
        ConfigError: The folder is no sweep's, or a word would change its trials.
    """
    name = find_value(words, "resume")
    if name is None:
        return list(words)
    more = drop_words(words, ["resume"])
    output = find_value(more, "output")
    folder = find_sweep(name, "runs" if output is None else output)
    if name == "last" or folder != Path(name):  # then output said where to look
        more = drop_words(more, ["output"])
    path = folder / COMMAND
    if not path.is_file():
        raise ConfigError(f"{folder} is no sweep's folder: {COMMAND} is missing.")
    given = {get_key(word) for word in more}
    try:
        before = [str(word) for word in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        raise ConfigError(f"{path} is damaged; use the sweep's own command.") from None
    whole = [*drop_words(before, given), *more]
    if "output" not in given:  # the words are those of another folder, or this one has moved
        whole = [*drop_words(whole, ["output"]), f"output={folder.parent}"]
    if parsing.read_definition(whole).folder.resolve() != folder.resolve():
        raise ConfigError(_explain_change(folder, before, sorted(given)))
    return whole


def _explain_change(folder: Path, before: Sequence[str], given: Sequence[str]) -> str:
    """Why a folder's sweep cannot go on: its file was edited, or a word would change its trials.

    Args:
        folder: Of the sweep.
        before: The words that it was begun with.
        given: Keys of the words that were added now.
    """
    path, kept = parsing.find_sweep_file(split_words(before)["sweep"]), folder / "sweep.yaml"
    if kept.is_file() and path.read_bytes() != kept.read_bytes():
        return (
            f"{path} was edited since {folder} began, whose trials cannot stand beside those of "
            f"another search; {kept} is the file as it was: put it back, or start a new sweep "
            "without resume=."
        )
    what = ", ".join(given) or "the version of recsys"
    return f"{what} would change the trials of {folder}; start a new sweep for that."


def run_to_end(words: Sequence[str]) -> int:
    """Runs a sweep to its end."""
    from recsys.sweep import samplers
    from recsys.sweep.running.driver import SweepDriver
    from recsys.sweep.running.studies import describe_left_out
    from recsys.sweep.space import make_plans

    definition = parsing.read_definition(words)
    found = make_plans(definition)
    samplers.check_options(definition)
    if definition.launcher == "slurm":
        from recsys.sweep.running.slurm_launcher import check_slurm

        check_slurm(definition.slurm)
    elif definition.slurm:
        raise ConfigError("slurm= describes jobs of launcher=slurm; set that, or leave it out.")
    folder = definition.folder
    _check_storage(folder, definition)
    _make_folder(folder, words, definition)
    print(f"sweep: {folder}", flush=True)
    searched = {d.get_key(plan.method) for plan in found.values() for d in plan.space}
    for key in sorted(searched & {get_key(word) for word in words}):
        print(f"{key} is searched; the command's value of it is not used.", flush=True)
    for sentence in describe_left_out(found):
        print(sentence, flush=True)
    print(
        "each trial has a line here when it ends (meanwhile: python -m recsys.sweep status "
        f"{folder})",
        flush=True,
    )
    return SweepDriver(definition, found, lambda text: print(text, flush=True)).run()


def _check_storage(folder: Path, definition: SweepDefinition) -> None:
    """Refuses to begin anew in one storage what another one has the trials of.

    Raises:
        ConfigError: The folder's trials are elsewhere.
    """
    from recsys.sweep.running.storage import JOURNAL

    marked = (folder / DATABASE).is_file()
    if definition.storage is None and marked:
        raise ConfigError(f"the trials of {folder} are in a database; give its storage=URL again.")
    if definition.storage is not None and not marked and (folder / JOURNAL).is_file():
        raise ConfigError(
            f"the trials of {folder} are in its journal; leave storage out, or set output to begin "
            "anew in the database."
        )


def _make_folder(folder: Path, words: Sequence[str], definition: SweepDefinition) -> None:
    """Makes the folder with the command and the sweep's file.

    The URL of a database is left out: it may hold a password.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: the folder cannot be made ({error.strerror}).") from None
    if definition.storage is not None:
        write_atomic(folder / DATABASE, "storage is given by a word; its URL may be secret.\n")
    kept = [make_absolute(word) for word in drop_words(words, ["storage"])]
    write_atomic(folder / COMMAND, json.dumps(kept, indent=1) + "\n")
    path = parsing.find_sweep_file(split_words(words)["sweep"])
    write_atomic(folder / "sweep.yaml", path.read_text(encoding="utf-8"))
