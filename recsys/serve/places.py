"""Where the model lies that is served, whichever it is now, and where its state is kept."""

from __future__ import annotations

import os
from pathlib import Path

from recsys.errors import ConfigError
from recsys.runs.current import CurrentRun, find_current_run, find_run_folder
from recsys.runtime.files import CURRENT

CURRENT_MODEL = "current"
"""Name of a folder that is not there and stands for the run that `current.json` beside it names."""

STATES = ".serve"
"""Folder beside models, with a state a model: no glob of a shell takes it for a run."""

_OLD_ENDING = ".state"


def locate_model(folder: Path) -> Path:
    """The folder whose files are to be served now.

    Args:
        folder: Of a bundle or run, a link to one, or `RUNS/current`.

    Raises:
        ConfigError: The run in use is not named, or is not there.
    """
    if not follows_current(folder):
        # A link is followed once, so that all files are read of the same folder.
        return folder.resolve()
    run = find_current_run(folder.parent)
    if not run.is_dir():
        raise ConfigError(f"{folder.parent / CURRENT} names {run}, which is not there.")
    return run.resolve()


def follows_current(folder: Path) -> bool:
    """Whether a folder stands for the run in use, whichever that is."""
    return (
        folder.name == CURRENT_MODEL and not folder.exists() and (folder.parent / CURRENT).is_file()
    )


def choose_state(folder: Path) -> Path:
    """Where the state of a model is kept unless another place is named.

    It goes by the name under which the model is served: feedback stays where it is when a link
    names another bundle, or another run is promoted.

    Args:
        folder: As of `locate_model`.
    """
    whole = Path(os.path.abspath(folder))  # not resolved: a link keeps its own name
    state = whole.parent / STATES / whole.name
    if not state.exists():
        for old in _list_old_states(folder):
            if old.is_dir():
                return old
    return state


def describe_old_state(folder: Path, state: Path) -> str | None:
    """A sentence where a state lies as earlier versions had it; None where it does not."""
    if state not in _list_old_states(folder):
        return None
    whole = Path(os.path.abspath(folder))
    place = whole.parent / STATES / whole.name
    return (
        f"the state is that of an earlier version, {state}, and is kept there; to have it out of "
        f"the way of what lists runs, stop the service and move it to {place}"
    )


def _list_old_states(folder: Path) -> list[Path]:
    """Where earlier versions kept the state of a model: beside it, by the name of its files."""
    if not follows_current(folder):
        return [folder.with_name(f"{folder.resolve().name}{_OLD_ENDING}")] if folder.name else []
    current = CurrentRun.read(folder.parent)
    assert current is not None, "it is followed"
    runs = (find_run_folder(run, folder.parent) for run in (current.run, *current.previous[::-1]))
    return [run.with_name(f"{run.name}{_OLD_ENDING}") for run in runs]
