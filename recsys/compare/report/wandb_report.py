"""The specification of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recsys import printable
from recsys.boards import specification as board
from recsys.boards.offline_run import LoggedRun, read_logged_run
from recsys.boards.specification import BoardSpec, LoggedKey, PanelSpec, RunSet, SectionSpec
from recsys.compare.measures.case_values import find_prefix
from recsys.compare.measures.cost import COSTS
from recsys.compare.methods import Method, make_identity
from recsys.compare.outcome import Comparison
from recsys.compare.report import page, table, tables
from recsys.compare.report.table import TextTable
from recsys.config.compose import AXES, Node

OPEN_SLICES = ("cold", "cold_user", "history", "popularity")
"""Slices by numbers of ours: the others would send what stands in a column of the user's."""


WHOLE = LoggedKey("summary", "cost/cpu_seconds", title="CPU, s")


def _costs(comparison: Comparison) -> list[LoggedKey]:
    """The seconds that the methods are set against each other by, then the whole command's."""
    names = {cost.key: cost.title for cost in COSTS}
    key = comparison.basis.key
    own = LoggedKey("summary", f"cost/{key}", title=names[key])
    return list(dict.fromkeys((own, WHOLE)))


def specification(comparison: Comparison, methods: Sequence[Method], entity: str) -> BoardSpec:
    """The workspace and the report of a comparison; figures and configuration only, no texts.

    Args:
        comparison: What was found.
        methods: The same methods, with their runs.
        entity: Who will own it; empty for the default of the key that pushes it.

    Raises:
        ConfigError: A run was not logged to Weights & Biases, or they lie in several projects.
        DataError: A file of a run is damaged.
    """
    by_folder = {
        run.folder: read_logged_run(run.folder) for method in methods for run in method.runs
    }
    project, logged = board.find_project(by_folder), list(by_folder.values())
    runs = tuple(
        # Of one method, these are the same in all its runs: they join its seeds.
        RunSet(
            method.label,
            ids=tuple(by_folder[run.folder].id for run in method.runs),
            by=("architecture.name",),
        )
        for method in methods
    )
    names = tuple(each.name for each in runs)
    scores = board.select_known_keys(
        (LoggedKey("summary", name) for name in _scores(comparison, methods)), logged
    )
    ids = tuple(run.id for run in logged)
    found = BoardSpec(
        title=f"{page.format_title(comparison)}: {comparison.question.family}",
        project=project,
        entity=entity,
        workspace=RunSet("compared runs", ids=ids, by=_telling(methods, logged)),
        runs=runs,
        columns=board.select_known_keys((*scores, *_costs(comparison)), logged),
        sections=(
            _findings(comparison),
            SectionSpec("Quality", _markdown(_quality(comparison)), names, _quality_panels(scores)),
            SectionSpec(
                "Quality against cost",
                _markdown([tables.make_cost_table(comparison)]),
                names,
                _cost_panels(scores, _costs(comparison), logged),
            ),
            *_training(methods, names, logged),
            SectionSpec("Configurations", "", names, (PanelSpec("comparer", "what differs"),)),
            SectionSpec("What was held equal", _held(comparison)),
        ),
    )
    board.check_board(found, logged)
    return found


def _scores(comparison: Comparison, methods: Sequence[Method]) -> list[str]:
    """Keys of the test metrics, that in question first."""
    columns = dict.fromkeys((comparison.question.metric, *comparison.columns))
    before = find_prefix(methods[0].runs[0])
    return [f"test/{name if name.startswith(before) else before + name}" for name in columns]


def _telling(methods: Sequence[Method], logged: Sequence[LoggedRun]) -> tuple[str, ...]:
    """Keys of the configuration that tell the methods apart: choices on the axes, if they do."""
    nodes = [make_identity(method.runs[0]) for method in methods]
    unlike = dict.fromkeys(key for node in nodes for key in node)
    keys = sorted(unlike, key=lambda key: key.removesuffix(".name") not in AXES)
    told: list[str] = []
    for key in (
        key.name
        for key in board.select_known_keys((LoggedKey("config", key) for key in keys), logged)
    ):
        if _kinds(nodes, [*told, key]) > _kinds(nodes, told):
            told.append(key)
    return tuple(told) or ("architecture.name",)


def _kinds(nodes: Sequence[Node], keys: Sequence[str]) -> int:
    """How many nodes differ in some keys."""
    return len({tuple(str(node.get(key)) for key in keys) for node in nodes})


def _findings(comparison: Comparison) -> SectionSpec:
    """What the comparison says."""
    safe = printable.escape_markdown
    lines = [f"**{safe(comparison.verdict)}**", ""] if comparison.verdict else []
    lines += [f"- {safe(sentence)}" for sentence in comparison.sentences]
    lines += ["", *(f"Note: {safe(note)}\n" for note in comparison.notes)]
    return SectionSpec("Findings", "\n".join(lines).strip())


def _quality(comparison: Comparison) -> list[TextTable]:
    """Tables of quality, without examples and without what stands in a user's column."""
    columns = list(dict.fromkeys(part.column for part in comparison.parts))
    slices = [
        each
        for column, each in zip(columns, tables.make_slice_tables(comparison), strict=True)
        if column in OPEN_SLICES
    ]
    differences = [tables.make_differences_table(comparison)] if comparison.differences else []
    users = [tables.make_users_table(comparison)] if comparison.users else []
    return [tables.make_quality_table(comparison), *differences, *slices, *users]


def _markdown(found: Iterable[TextTable]) -> str:
    return "\n".join(line for each in found for line in table.render_markdown(each)).strip()


def _quality_panels(scores: Sequence[LoggedKey]) -> tuple[PanelSpec, ...]:
    return tuple(PanelSpec("bar", key.name, (key,)) for key in scores)


def _cost_panels(
    scores: Sequence[LoggedKey], seconds: Sequence[LoggedKey], logged: Sequence[LoggedRun]
) -> tuple[PanelSpec, ...]:
    """The metric in question against each kind of cost."""
    costs = (
        *seconds,
        LoggedKey("summary", "cost/train_seconds"),
        LoggedKey("summary", "cost/trained_parameters"),
    )
    return tuple(
        PanelSpec("scatter", f"{scores[0].name} against {cost.name}", (cost, scores[0]))
        for cost in board.select_known_keys(costs, logged)
        if scores
    )


def _training(
    methods: Sequence[Method], names: tuple[str, ...], logged: Sequence[LoggedRun]
) -> list[SectionSpec]:
    """Curves over optimiser steps, where a run has them."""
    monitors = dict.fromkeys(
        f"val/{run.config['evaluation']['monitor']}" for method in methods for run in method.runs
    )
    panels = curves(monitors, logged)
    return [SectionSpec("Training", "", names, panels)] if panels else []


def curves(monitors: Iterable[str], logged: Sequence[LoggedRun]) -> tuple[PanelSpec, ...]:
    """Panels of validation, loss, learning rate and distance from the start, by step.

    Args:
        monitors: Keys of the validation metrics to draw.
        logged: The runs.
    """
    names = sorted(set().union(*(run.keys for run in logged)))
    wanted = [name for name in monitors if name in names]
    wanted += [name for name in ("train/loss", "val/loss") if name in names]
    wanted += [name for name in names if name.startswith(("lr/", "distance/", "grad_norm/"))]
    return tuple(PanelSpec("line", name, (LoggedKey("history", name),)) for name in wanted)


def _held(comparison: Comparison) -> str:
    """What the runs have in common."""
    held = (
        (printable.escape_markdown(name), printable.escape_markdown(value))
        for name, value in page.list_settings(comparison)
    )
    return "\n".join(f"- {name}: {value}" for name, value in held)
