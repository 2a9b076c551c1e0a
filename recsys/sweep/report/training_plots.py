"""Pictures of how trials trained: regularisation, fit, learning curves and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recsys.compare.report.style import LIGHT
from recsys.compare.report.svg import compute_log_ticks, format_number
from recsys.sweep.record import SweepRecord, TrialRecord
from recsys.sweep.report.drawing import (
    HIGH,
    SweepPlot,
    add_legend_entry,
    compute_grid_size,
    find_position,
    format_hover,
    get_colour,
    get_symbol,
    make_plot_grid,
    set_x_range,
    style_figure,
)
from recsys.sweep.report.formatting import (
    format_objective,
    format_short_label,
    get_sign,
    scale_value,
)
from recsys.sweep.report.sensitivity import infer_role, sort_axes

LOSS = "train.loss"


def make_points_trace(
    sweep: SweepRecord, trials: Sequence[TrialRecord], x: Sequence[object], y: Sequence[object]
) -> dict[str, Any]:
    """A trace of one method's trials as filled marks."""
    method = trials[0].method
    return {
        "x": list(x),
        "y": list(y),
        "mode": "markers",
        "marker": {
            "color": get_colour(sweep, method),
            "symbol": get_symbol(sweep, method),
            "size": 8,
            "opacity": 0.85,
        },
        "text": [format_hover(sweep, trial) for trial in trials],
        "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
        "name": method,
        "legendgroup": method,
    }


def list_measures(sweep: SweepRecord) -> dict[str, str]:
    """What regularisation is held against: figures of the trials by name, with titles.

    A gap needs a figure that was measured on both parts.
    """
    names = dict.fromkeys(name for trial in sweep.trials for name in trial.figures)
    out = {LOSS: "training loss"} if LOSS in names else {}
    for name in names:
        part, _, metric = name.partition(".")
        if part == "train" and f"validation.{metric}" in names:
            out[f"gap.{metric}"] = f"{metric}: training minus validation"
        if part == "distance":
            out[name] = f"distance from the start, {metric}"
    return out


def find_measure(trial: TrialRecord, name: str) -> float | None:
    """A figure of a trial, or the gap between two; None where it was not measured."""
    part, _, metric = name.partition(".")
    if part != "gap":
        return trial.figures.get(name)
    train, held = trial.figures.get(f"train.{metric}"), trial.figures.get(f"validation.{metric}")
    return None if train is None or held is None else train - held


def draw_regularisation(sweep: SweepRecord) -> SweepPlot | None:
    """Training loss, gap and distance from the start against each regularisation axis."""
    rows = list_measures(sweep)
    axes = [a for a in sort_axes(sweep) if infer_role(a) == "regularisation"]
    axes = [a for a in axes if any(a.name in t.values for t in sweep.trials)]
    if not rows or not axes:
        return None
    below = [axis.label for axis in axes for _ in rows]
    beside = [title for _ in axes for title in rows.values()]
    figure = make_plot_grid(below, beside, len(axes), len(rows), shared=False)
    named: set[str] = set()
    for row, axis in enumerate(axes, start=1):
        for column, name in enumerate(rows, start=1):
            set_x_range(figure, axis, row, column)
            for method in sweep.methods:
                found = [
                    trial
                    for trial in sweep.select_trials(method, "complete")
                    if find_position(axis, trial) is not None
                    and find_measure(trial, name) is not None
                ]
                if found:
                    x, y = (
                        [find_position(axis, t) for t in found],
                        [find_measure(t, name) for t in found],
                    )
                    trace = make_points_trace(sweep, found, x, y)
                    figure.add_scatter(**trace, showlegend=method not in named, row=row, col=column)
                    named.add(method)
    if not named:
        return None
    return SweepPlot("regularisation", "Fit and distance against regularisation", _FIT, figure)


_FIT = (
    "Complete trials at the end of training. Regularisation that acts raises the training loss or "
    "keeps the parameters nearer to their start (Euclidean distance, by group of parameters). "
    "Losses under label smoothing or dropout are those that were trained on, and are comparable "
    "at equal values of these only."
)


def draw_fit(sweep: SweepRecord) -> SweepPlot | None:
    """The first objective against the training loss; None where no trial has both."""
    import plotly.graph_objects as go

    objective, figure = sweep.objectives[0], go.Figure()
    for method in sweep.methods:
        found = [
            trial for trial in sweep.select_trials(method, "complete") if LOSS in trial.figures
        ]
        if found:
            y = [scale_value(objective, trial.objectives[0]) for trial in found]
            figure.add_scatter(
                **make_points_trace(sweep, found, [t.figures[LOSS] for t in found], y)
            )
    if not figure.data:
        return None
    style_figure(figure, HIGH + 20)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="training loss at the end")
    figure.update_yaxes(title_text=format_objective(objective))
    caption = (
        "Complete trials: what was fitted against what holds on the validation part. Where a "
        "method's trials fall towards the left, less training loss has meant worse validation: "
        "they overfit. Methods with different objectives have different losses."
    )
    return SweepPlot("gap", "Training against validation", caption, figure)


def draw_learning_curves(sweep: SweepRecord) -> SweepPlot | None:
    """The reports of all trials, a plot a method; None without any report."""
    methods = [m for m in sweep.methods if any(trial.reports for trial in sweep.select_trials(m))]
    if not methods:
        return None
    objective = sweep.objectives[0]
    rows, columns = compute_grid_size(len(methods))
    titles = [f"{method}: optimiser steps" for method in methods]
    figure = make_plot_grid(titles, format_objective(objective), rows, columns, shared=True)
    for at, method in enumerate(methods):
        where = {"row": at // columns + 1, "col": at % columns + 1}
        best = sweep.find_best(method)
        # The best comes last, so that it lies above the others.
        for trial in sorted(sweep.select_trials(method), key=lambda t: t is best):
            if trial.reports:
                figure.add_scatter(**_make_curve_trace(sweep, trial, trial is best), **where)
    soft = LIGHT["soft"]
    for name, mark in (("pruned", "x-thin-open"), ("failed", "line-ns-open")):
        if any(trial.state == name and trial.reports for trial in sweep.trials):
            add_legend_entry(figure, name, {"symbol": mark, "size": 9, "color": soft})
    caption = (
        "The validation value at each validation of every trial, of its first seed. Bold: the "
        "method's best trial. A mark at a line's end says that the trial was pruned or failed."
    )
    return SweepPlot("learning", "Learning curves", caption, figure)


def _make_curve_trace(sweep: SweepRecord, trial: TrialRecord, best: bool) -> dict[str, Any]:
    """The line of one trial; how it ended is marked at its end."""
    objective = sweep.objectives[0]
    own = get_colour(sweep, trial.method)
    ends = {"pruned": "x-thin-open", "failed": "line-ns-open"}
    count = len(trial.reports)
    # A single report is no line: only its mark shows.
    plain = [5 if count == 1 else 0] * count
    marks = [get_symbol(sweep, trial.method)] * count
    if trial.state in ends:
        plain[-1], marks[-1] = 9, ends[trial.state]
    return {
        "x": [step for step, _ in trial.reports],
        "y": [scale_value(objective, found) for _, found in trial.reports],
        "mode": "lines+markers",
        "line": {"color": f"{own}ff" if best else f"{own}90", "width": 3 if best else 1},
        "marker": {"size": plain, "symbol": marks, "color": own, "line": {"width": 1.5}},
        "text": [format_hover(sweep, trial)] * count,
        "hovertemplate": "%{text}<br>step %{x}: %{y:.2f}<extra></extra>",
        "showlegend": False,
        "legendgroup": trial.method,
    }


def find_pareto_front(sweep: SweepRecord) -> list[TrialRecord]:
    """The complete trials of all methods that no other beats in both objectives."""
    one, two = (get_sign(objective) for objective in sweep.objectives)
    trials = [trial for trial in sweep.trials if trial.state == "complete"]
    found = [(one * trial.objectives[0], two * trial.objectives[1]) for trial in trials]
    return [
        trial
        for trial, (a, b) in zip(trials, found, strict=True)
        if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in found)
    ]


def draw_cost(sweep: SweepRecord) -> SweepPlot | None:
    """The first objective against the second, with the Pareto front over all methods.

    None where there is one objective, or no complete trial.
    """
    import plotly.graph_objects as go

    complete = [trial for trial in sweep.trials if trial.state == "complete"]
    if len(sweep.objectives) < 2 or not complete:
        return None
    quality, other = sweep.objectives
    kept, figure = find_pareto_front(sweep), go.Figure()
    line = sorted(
        (scale_value(other, t.objectives[1]), scale_value(quality, t.objectives[0])) for t in kept
    )
    figure.add_scatter(
        x=[x for x, _ in line],
        y=[y for _, y in line],
        mode="lines",
        name="Pareto front",
        line={
            "color": LIGHT["soft"],
            "dash": "dash",
            "width": 1.5,
            "shape": "hv" if other.direction == "minimize" else "vh",
        },
        hoverinfo="skip",
    )
    for method in sweep.methods:
        found = sweep.select_trials(method, "complete")
        if found:
            x = [scale_value(other, trial.objectives[1]) for trial in found]
            y = [scale_value(quality, trial.objectives[0]) for trial in found]
            trace = make_points_trace(sweep, found, x, y)
            trace["marker"]["size"] = [12 if trial in kept else 7 for trial in found]
            trace["hovertemplate"] = (
                f"%{{text}}<br>{format_short_label(other)} %{{x:.4g}}<extra></extra>"
            )
            figure.add_scatter(**trace)
    style_figure(figure, HIGH + 60)
    costs = [scale_value(other, trial.objectives[1]) for trial in complete]
    figure.update_xaxes(title_text=format_objective(other))
    if min(costs) > 0 and max(costs) / min(costs) > 10:
        figure.update_xaxes(
            type="log",
            tickvals=(marks := compute_log_ticks(min(costs) / 2, 2 * max(costs))),
            ticktext=[format_number(mark) for mark in marks],
            title_text=f"{format_objective(other)} (log scale)",
        )
    figure.update_yaxes(title_text=format_objective(quality))
    figure.update_layout(showlegend=True)
    caption = (
        "Complete trials. Large, joined by the dashed line: the Pareto front, on which no other "
        "trial of any method is at least as good in both objectives and better in one. Between "
        "two of its points the front is a step, since nothing between them was measured."
    )
    return SweepPlot(
        "cost", f"{format_short_label(quality)} against {other.label}", caption, figure
    )
