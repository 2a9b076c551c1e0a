"""The closing run of a sweep at Weights & Biases: tables, charts, pictures and the page.

Numbers and configuration only: a sweep's record has no text of an item and no user.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError
from recsys.sweep.record import SearchAxis, State, SweepRecord, TrialRecord, Value
from recsys.sweep.report.best_of_k import compute_best_so_far, list_scores
from recsys.sweep.report.figures import draw_plots
from recsys.sweep.report.formatting import format_parameter, get_sign
from recsys.sweep.report.importance import compute_importances
from recsys.sweep.report.optuna_plots import draw_study_plots
from recsys.sweep.report.page import FILE
from recsys.sweep.report.sensitivity import (
    compute_envelope,
    convert_to_float,
    list_points,
    sort_axes,
)
from recsys.tracking.wandb_files import list_files
from recsys.tracking.wandb_run import COUNTED, WandbRunInfo, open_run

STATES: tuple[State, ...] = ("complete", "pruned", "failed", "running")

Cell = float | int | str | None
Rows = tuple[list[str], list[list[Cell]]]
"""Head and rows of a table."""


def compute_summary_id(folder: Path) -> str:
    """The id of the closing run: the same for a sweep's folder, so that a later one replaces it."""
    return hashlib.sha256(f"sweep-summary {folder.name}".encode()).hexdigest()[:8]


def log_summary_run(sweep: SweepRecord, project: str, group: str, mode: str) -> None:
    """Logs the closing run; one that the sweep has logged before is replaced.

    Args:
        sweep: As it stands.
        project: At Weights & Biases.
        group: Of the sweep's runs.
        mode: online or offline.

    Raises:
        ConfigError: The service cannot be reached or refuses.
    """
    import wandb

    name = compute_summary_id(sweep.folder)
    for path in list_files(
        sweep.folder, name
    ):  # else wandb sync would send the older one after this
        shutil.rmtree(path.parent)
    try:
        run = open_run(
            sweep.folder,
            name,
            mode == "offline",
            WandbRunInfo(
                project,
                group,
                (f"sweep={sweep.name}",),
                f"sweep {sweep.name}: summary",
                "sweep-summary",
            ),
            _make_config(sweep),
        )
        run.log(_make_media(sweep))
        run.summary.update(make_summary(sweep))
        run.finish(exit_code=0)
        wandb.teardown(exit_code=0)
    except wandb.Error as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"the sweep's closing run cannot be logged ({reason}); set tracking.wandb=offline."
        ) from None


def _make_config(sweep: SweepRecord) -> dict[str, Any]:
    """What the sweep searched."""
    return {
        "sweep": sweep.name,
        "methods": list(sweep.methods),
        "budget": sweep.budget,
        "axes": {
            axis.label: list(axis.choices) if axis.kind == "choice" else [axis.low, axis.high]
            for axis in sweep.axes
        },
        "objectives": {o.name: o.direction for o in sweep.objectives},
        "common": dict(sweep.common),
    }


def _make_media(sweep: SweepRecord) -> dict[str, Any]:
    """Tables, charts, pictures and the page, by key."""
    import wandb

    out: dict[str, Any] = {}
    for name, (head, rows) in make_tables(sweep).items():
        out[name] = wandb.Table(columns=[*head], data=rows)
    out |= _make_charts(sweep)
    drawn = draw_plots(sweep)
    for method in sweep.methods:
        drawn += draw_study_plots(sweep, method)
    for picture in drawn:
        out[f"pictures/{picture.name}"] = wandb.Plotly(picture.figure)
    page = sweep.folder / FILE
    if page.is_file():
        out["report"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
    return out


def make_tables(sweep: SweepRecord) -> dict[str, Rows]:
    """The tables by key; none without rows."""
    found = {
        "trials": _make_trial_table(sweep),
        "best trials": _make_best_table(sweep),
        "importances": _make_importance_table(sweep),
        "closing tests": _make_test_table(sweep),
        "envelopes": _make_envelope_table(sweep),
    }
    return {name: (head, rows) for name, (head, rows) in found.items() if rows}


def _list_used_axes(sweep: SweepRecord) -> list[SearchAxis]:
    """Those that any trial has a value of, learning rates first."""
    return [axis for axis in sort_axes(sweep) if any(axis.name in t.values for t in sweep.trials)]


def _make_cell(axis: SearchAxis, value: Value) -> Cell:
    """A value of an axis: text for a choice, whose values may be of several kinds."""
    return format_parameter(value) if axis.kind == "choice" else convert_to_float(value)


def _make_value_cells(axes: Sequence[SearchAxis], trial: TrialRecord) -> list[Cell]:
    return [
        _make_cell(axis, trial.values[axis.name]) if axis.name in trial.values else None
        for axis in axes
    ]


def _make_objective_cells(sweep: SweepRecord, trial: TrialRecord) -> list[Cell]:
    empty: list[Cell] = [None] * len(sweep.objectives)
    return [float(value) for value in trial.objectives] if trial.objectives else empty


def _make_trial_table(sweep: SweepRecord) -> Rows:
    """Every trial with all that is known of it."""
    axes = _list_used_axes(sweep)
    names = sorted({name for trial in sweep.trials for name in trial.figures})
    head = ["method", "trial", "state", "reason", "repeats"]
    head += [*(axis.label for axis in axes), *(o.label for o in sweep.objectives)]
    head += [*names, "seconds", "epochs"]
    rows: list[list[Cell]] = [
        [
            *(trial.method, trial.number, trial.state, trial.reason, trial.retry_of),
            *_make_value_cells(axes, trial),
            *_make_objective_cells(sweep, trial),
            *(float(f) if (f := trial.figures.get(name)) is not None else None for name in names),
            float(trial.seconds),
            float(trial.epochs),
        ]
        for trial in sweep.trials
    ]
    return head, rows


def _make_best_table(sweep: SweepRecord) -> Rows:
    """The best trial of each method."""
    axes = _list_used_axes(sweep)
    head = ["method", "trial", *(o.label for o in sweep.objectives), *(a.label for a in axes)]
    found = [best for method in sweep.methods if (best := sweep.find_best(method)) is not None]
    return head, [
        [t.method, t.number, *_make_objective_cells(sweep, t), *_make_value_cells(axes, t)]
        for t in found
    ]


def _make_importance_table(sweep: SweepRecord) -> Rows:
    """The share of each axis in each method that has trials enough for it."""
    rows: list[list[Cell]] = []
    for method in sweep.methods:
        rows += [
            [method, axis, share]
            for axis, share in (compute_importances(sweep, method) or {}).items()
        ]
    return ["method", "axis", "importance"], rows


def _select_finite(sweep: SweepRecord, method: str) -> dict[str, list[float]]:
    """The values of each test metric over a method's closing runs, where it is defined."""
    tests = sweep.tests.get(method, ())
    names = dict.fromkeys(name for test in tests for name in test)
    out = {
        name: [float(v) for t in tests if (v := t.get(name)) is not None and math.isfinite(v)]
        for name in names
    }
    return {name: values for name, values in out.items() if values}


def _make_test_table(sweep: SweepRecord) -> Rows:
    """Mean and deviation of each test metric over each method's closing runs, then baselines."""
    rows: list[list[Cell]] = [
        [
            *(method, name, statistics.fmean(values)),
            statistics.stdev(values) if len(values) > 1 else None,
            len(values),
        ]
        for method in sweep.methods
        for name, values in _select_finite(sweep, method).items()
    ]
    rows += [
        [name, metric, value, None, None]
        for name, metrics in sweep.floors.items()
        for metric, value in metrics.items()
    ]
    rows = [row for row in rows if COUNTED not in str(row[1])]
    return ["method", "metric", "mean", "standard deviation", "runs"], rows


def _make_envelope_table(sweep: SweepRecord) -> Rows:
    """The trials on each method's envelope over each numeric axis."""
    rows: list[list[Cell]] = []
    for axis in _list_numeric_axes(sweep):
        for method in sweep.methods:
            hull = compute_envelope(list_points(sweep, method, axis), get_sign(sweep.objectives[0]))
            rows += [[axis.get_key(method), method, x, y] for x, y in hull]
    return ["axis", "method", "value", sweep.objectives[0].label], rows


def _list_numeric_axes(sweep: SweepRecord) -> list[SearchAxis]:
    return [axis for axis in _list_used_axes(sweep) if axis.kind != "choice"]


def _make_charts(sweep: SweepRecord) -> dict[str, Any]:
    """Charts of the service's own: all trials over each numeric axis, and the best so far.

    Its scales are linear, so that an axis searched on a logarithmic one is drawn by its logarithm.
    """
    import wandb

    label = sweep.objectives[0].label
    out: dict[str, Any] = {}
    for axis in _list_numeric_axes(sweep):
        name = f"log10 {axis.label}" if axis.log else axis.label
        rows = [
            [method, math.log10(x) if axis.log else x, y]
            for method in sweep.methods
            for x, y in list_points(sweep, method, axis)
        ]
        if rows:
            table = wandb.Table(columns=["method", name, label], data=rows)
            title = f"{label} over {name}: complete trials"
            out[f"charts/{axis.name}"] = wandb.plot.scatter(table, name, label, title=title)
    found = {method: list_scores(sweep, method) for method in sweep.methods}
    curves = {
        m: compute_best_so_far(v, get_sign(sweep.objectives[0])) for m, v in found.items() if v
    }
    if curves:
        out["charts/best so far"] = wandb.plot.line_series(
            xs=[list(range(1, len(values) + 1)) for values in curves.values()],
            ys=list(curves.values()),
            keys=list(curves),
            title=f"best {label} so far",
            xname="trials of the method",
        )
    return out


def make_summary(sweep: SweepRecord) -> dict[str, float | int]:
    """What the closing run's summary holds: numbers by key."""
    states = Counter(trial.state for trial in sweep.trials)
    out: dict[str, float | int] = {f"states/{state}": states[state] for state in STATES}
    for method in sweep.methods:
        best = sweep.find_best(method)
        if best is not None:
            for objective, value in zip(sweep.objectives, best.objectives, strict=True):
                out[f"best/{method}/{objective.label}"] = value
        for axis, share in (compute_importances(sweep, method) or {}).items():
            out[f"importance/{method}/{axis}"] = share
        for name, values in _select_finite(sweep, method).items():
            out[f"closing/{method}/{name}/mean"] = statistics.fmean(values)
            if len(values) > 1:
                out[f"closing/{method}/{name}/deviation"] = statistics.stdev(values)
    for name, metrics in sweep.floors.items():
        out |= {f"baseline/{name}/{metric}": value for metric, value in metrics.items()}
    return {key: value for key, value in out.items() if COUNTED not in key}
