"""The specification of a workspace and a report: `wandb.json`, made offline, pushed when wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from recsys.boards.offline_run import LoggedRun
from recsys.errors import ConfigError
from recsys.runtime.files import write_atomic

FILE = "wandb.json"
VERSION = 1

Source = Literal["history", "summary", "config"]
Pick = Literal["mean", "max", "min"]
Kind = Literal["line", "bar", "scatter", "parallel", "importance", "comparer", "table", "media"]


@dataclass(frozen=True)
class LoggedKey:
    """A value of runs.

    Attributes:
        source: Where they log it: in rows, as last value, or in the configuration.
        name: Of the value; of the configuration with dots.
        log: Whether its axis is logarithmic.
        title: What its axis says; empty for the name.
    """

    source: Source
    name: str
    log: bool = False
    title: str = ""


@dataclass(frozen=True)
class PanelSpec:
    """One picture.

    Attributes:
        kind: What it draws. `line`: rows over optimiser steps; `bar`: a last value of each group;
            `scatter`: the second key over the first; `parallel`: an axis for each key;
            `importance`: of the configuration for the one key; `comparer`: the configurations side
            by side; `table` and `media`: a table, or a page, that a run logged under the one key.
        title: Above it.
        keys: What it shows.
        by: Configuration key by which a `bar` joins runs; empty for the runs' own groups.
        pick: Which value of the runs so joined it shows.
    """

    kind: Kind
    title: str
    keys: tuple[LoggedKey, ...] = ()
    by: str = ""
    pick: Pick = "mean"


@dataclass(frozen=True)
class RunSet:
    """Some runs of the project: those that meet all that is given.

    Attributes:
        name: What the legend calls them.
        group: Their group at Weights & Biases, or empty.
        tags: Tags, one of which each has; or empty.
        ids: Their ids, or empty.
        by: Keys by which they are drawn together: `group`, or dotted ones of the configuration.
    """

    name: str
    group: str = ""
    tags: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    by: tuple[str, ...] = ()

    def __contains__(self, run: LoggedRun) -> bool:
        """Whether a run is one of them."""
        return (
            self.group in ("", run.group)
            and (not self.tags or not set(self.tags).isdisjoint(run.tags))
            and (not self.ids or run.id in self.ids)
        )


@dataclass(frozen=True)
class SectionSpec:
    """A part of the workspace and of the report.

    Attributes:
        title: Above it.
        text: Markdown before its panels, or empty.
        runs: Names of the `RunSet` that the report draws; none for a part of text only.
        panels: The pictures.
    """

    title: str
    text: str = ""
    runs: tuple[str, ...] = ()
    panels: tuple[PanelSpec, ...] = ()


@dataclass(frozen=True)
class BoardSpec:
    """A workspace and a report of the same.

    Attributes:
        title: Of both.
        project: At Weights & Biases, in which the runs lie.
        entity: Who owns it; empty for the default of the key that pushes it.
        workspace: The runs of the workspace.
        runs: Those of the report's sections.
        columns: Last values that the table of runs shows first.
        sections: In order.
    """

    title: str
    project: str
    entity: str
    workspace: RunSet
    runs: tuple[RunSet, ...]
    columns: tuple[LoggedKey, ...]
    sections: tuple[SectionSpec, ...]

    def list_keys(self) -> list[LoggedKey]:
        """All that the panels and the table of runs show, each once."""
        panels = [panel for section in self.sections for panel in section.panels]
        return list(dict.fromkeys([*(k for p in panels for k in p.keys), *self.columns]))


def has_key(run: LoggedRun, key: LoggedKey) -> bool:
    """Whether a run logged a value."""
    if key.source == "history":
        return any(key.name in row for row in run.history)
    return key.name in (run.config if key.source == "config" else run.summary)


def select_known_keys(
    keys: Iterable[LoggedKey], runs: Sequence[LoggedRun]
) -> tuple[LoggedKey, ...]:
    """Those of some keys that a run has."""
    return tuple(key for key in keys if any(has_key(run, key) for run in runs))


def check_board(board: BoardSpec, runs: Sequence[LoggedRun]) -> None:
    """Checks a specification against what the runs really logged.

    Raises:
        ValueError: A panel shows what none of its runs has, or runs of a section are none; our own
            mistake, not the user's.
    """
    named = {each.name: each for each in board.runs}
    for each in (board.workspace, *board.runs):
        members = [run for run in runs if run in each]
        if not members or len(members) < len(each.ids):
            raise ValueError(f"the runs '{each.name}' are not those of the specification")
        for name in each.by:
            if name != "group" and not any(
                has_key(run, LoggedKey("config", name)) for run in members
            ):
                raise ValueError(f"none of the runs '{each.name}' has {name} to be grouped by")
    for section in board.sections:
        members = [run for run in runs if any(run in named[name] for name in section.runs)]
        for key in (key for panel in section.panels for key in panel.keys):
            if not any(has_key(run, key) for run in members):
                raise ValueError(
                    f"{section.title}: none of its runs logged {key.source} {key.name}"
                )
    for key in board.columns:
        if not any(has_key(run, key) for run in runs):
            raise ValueError(f"columns: no run logged {key.source} {key.name}")


def find_project(runs: Mapping[Path, LoggedRun]) -> str:
    """The project in which all runs lie.

    Raises:
        ConfigError: They lie in several: a workspace shows one.
    """
    projects: dict[str, Path] = {}
    for folder, run in runs.items():
        projects.setdefault(run.project, folder)
    if len(projects) > 1:
        (one, first), (other, second) = list(projects.items())[:2]
        raise ConfigError(
            f"{first} lies in the project '{one}' at Weights & Biases and {second} in '{other}'; "
            "leave wandb= out, or compare runs of one project."
        )
    return next(iter(projects))


def write_board(board: BoardSpec, folder: Path) -> Path:
    """Writes `wandb.json` whole.

    Raises:
        DataError: The disk is full.
    """
    path = folder / FILE
    node = {"version": VERSION, **asdict(board)}
    write_atomic(path, json.dumps(node, indent=1) + "\n")
    return path


def read_board(folder: Path, entity: str = "") -> BoardSpec:
    """A specification from its folder.

    Args:
        folder: Of a comparison or a sweep.
        entity: In place of the one that the file names, unless empty.

    Raises:
        ConfigError: There is none, or the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(
            f"{path} is missing; make it with python -m recsys.compare RUNS... wandb=spec, or "
            "name the folder of a sweep."
        )
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
        if node.pop("version") != VERSION:
            raise ValueError
        board = BoardSpec(
            **{name: str(node[name]) for name in ("title", "project", "entity")},
            workspace=_parse_runs(node["workspace"]),
            runs=tuple(_parse_runs(each) for each in node["runs"]),
            columns=_parse_keys(node["columns"]),
            sections=tuple(_parse_section(each) for each in node["sections"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path} is damaged or of another version; make it anew.") from None
    return replace(board, entity=entity) if entity else board


def _parse_keys(nodes: Sequence[Mapping[str, Any]]) -> tuple[LoggedKey, ...]:
    return tuple(LoggedKey(**node) for node in nodes)


def _parse_runs(node: Mapping[str, Any]) -> RunSet:
    return RunSet(**{**node, **{name: tuple(node[name]) for name in ("tags", "ids", "by")}})


def _parse_section(node: Mapping[str, Any]) -> SectionSpec:
    panels = (PanelSpec(**{**each, "keys": _parse_keys(each["keys"])}) for each in node["panels"])
    return SectionSpec(**{**node, "runs": tuple(node["runs"]), "panels": tuple(panels)})
