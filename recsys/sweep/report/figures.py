"""The pictures that answer a sweep's question: sensitivity to each axis, and best-of-k curves."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from recsys.compare.report.style import LIGHT
from recsys.sweep.record import SearchAxis, SweepRecord, TrialRecord
from recsys.sweep.report.best_of_k import compute_best_so_far, compute_expected_best, list_scores
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
from recsys.sweep.report.formatting import find_last_value, format_objective, get_sign, scale_value
from recsys.sweep.report.sensitivity import (
    compute_envelope,
    find_best_by_choice,
    list_points,
    sort_axes,
)
from recsys.sweep.report.training_plots import (
    draw_cost,
    draw_fit,
    draw_learning_curves,
    draw_regularisation,
)


def draw_plots(sweep: SweepRecord) -> list[SweepPlot]:
    """All of our own pictures that the sweep has something for, the answers first."""
    made = (
        draw_sensitivity,
        draw_best_of_k,
        draw_cost,
        draw_regularisation,
        draw_fit,
        draw_learning_curves,
    )
    found = (make(sweep) for make in made)
    return [picture for picture in found if picture is not None]


def list_used_axes(sweep: SweepRecord) -> list[SearchAxis]:
    """The axes that have a value in any trial, learning rates first."""
    return [a for a in sort_axes(sweep) if any(a.name in trial.values for trial in sweep.trials)]


def draw_sensitivity(sweep: SweepRecord) -> SweepPlot | None:
    """Every trial against each axis, with the envelope; None without a value to draw."""
    values = [y for trial in sweep.trials if (y := find_last_value(trial)) is not None]
    axes = list_used_axes(sweep)
    if not values or not axes:
        return None
    objective = sweep.objectives[0]
    heights = [scale_value(objective, y) for y in values]
    low, high = min(heights), max(heights)
    span = (high - low) or abs(high) or 1.0
    failed = any(trial.state == "failed" for trial in sweep.trials)
    bottom = low - (0.16 if failed else 0.06) * span
    rows, columns = compute_grid_size(len(axes))
    figure = make_plot_grid(
        [axis.label for axis in axes], format_objective(objective), rows, columns, shared=True
    )
    for at, axis in enumerate(axes):
        where = {"row": at // columns + 1, "col": at % columns + 1}
        set_x_range(figure, axis, where["row"], where["col"])
        for method in sweep.methods:
            for trace in _make_traces(sweep, method, axis, low - 0.11 * span):
                figure.add_scatter(**trace, showlegend=False, legendgroup=method, **where)
    figure.update_yaxes(range=[bottom, high + 0.08 * span])
    _add_legend(figure, sweep)
    return SweepPlot("sensitivity", "Sensitivity to each axis", _CAPTION, figure)


_CAPTION = (
    "Filled: complete trials, the best of each method ringed. Hollow: pruned trials, at their last "
    "report. Ticks at the bottom: failed trials. A line is a method's envelope: from both ends of "
    "the axis towards its best trial, it joins each complete trial that beats all complete trials "
    "farther out, so that trials spoilt by their other choices do not count. It takes the best "
    "reachable value to rise to one peak and fall behind it. A flat envelope is a method that is "
    "not sensitive to the axis. For a choice, a bar marks its best complete trial. The horizontal "
    "scale is the searched range."
)


def _make_traces(
    sweep: SweepRecord, method: str, axis: SearchAxis, bottom: float
) -> Iterator[dict[str, Any]]:
    """The traces of a method's trials on an axis, and of its envelope."""
    objective, own = sweep.objectives[0], get_colour(sweep, method)
    mark, best = get_symbol(sweep, method), sweep.find_best(method)

    def make_trace(
        trials: Sequence[TrialRecord], marker: dict[str, Any], y: float | None
    ) -> dict[str, Any]:
        return {
            "x": [find_position(axis, trial) for trial in trials],
            "y": [
                scale_value(objective, find_last_value(t) or 0.0) if y is None else y
                for t in trials
            ],
            "text": [format_hover(sweep, trial) for trial in trials],
            "hovertemplate": "%{text}<extra></extra>",
            "mode": "markers",
            "marker": {"color": own, **marker},
        }

    found = [
        trial for trial in sweep.select_trials(method) if find_position(axis, trial) is not None
    ]
    of_state: dict[str, list[TrialRecord]] = {}
    for trial in found:
        of_state.setdefault(trial.state, []).append(trial)
    if axis.kind == "choice":
        yield from _make_choice_traces(sweep, axis, found, own)
    else:
        hull = compute_envelope(list_points(sweep, method, axis), get_sign(objective))
        yield {
            "x": [x for x, _ in hull],
            "y": [scale_value(objective, y) for _, y in hull],
            "mode": "lines",
            "line": {"color": own, "width": 2},
            "hoverinfo": "skip",
        }
    pruned = [trial for trial in of_state.get("pruned", []) if trial.reports]
    if pruned:
        hollow = {"symbol": f"{mark}-open", "size": 8, "line": {"width": 1.5}}
        yield make_trace(pruned, hollow, None)
    if complete := of_state.get("complete", []):
        yield make_trace(complete, {"symbol": mark, "size": 8}, None)
    if failed := of_state.get("failed", []):
        yield make_trace(
            failed, {"symbol": "line-ns-open", "size": 11, "line": {"width": 2}}, bottom
        )
    if best is not None and find_position(axis, best) is not None:
        ring = {"symbol": f"{mark}-open", "size": 14, "color": LIGHT["ink"], "line": {"width": 1.5}}
        yield make_trace([best], ring, None)


def _make_choice_traces(
    sweep: SweepRecord, axis: SearchAxis, trials: Sequence[TrialRecord], own: str
) -> Iterator[dict[str, Any]]:
    """A bar at the best complete trial of each choice."""
    objective = sweep.objectives[0]
    best = find_best_by_choice(trials, axis, get_sign(objective))
    yield {
        "x": list(best),
        "y": [scale_value(objective, y) for y in best.values()],
        "mode": "markers",
        "marker": {"symbol": "line-ew-open", "size": 30, "color": own, "line": {"width": 2.5}},
        "hoverinfo": "skip",
    }


def _add_legend(figure: Any, sweep: SweepRecord) -> None:  # noqa: ANN401
    """Methods by colour, states by mark."""
    for method in sweep.methods:
        if sweep.select_trials(method):
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="lines+markers",
                name=method,
                legendgroup=method,
                line={"color": get_colour(sweep, method), "width": 2},
                marker={"symbol": get_symbol(sweep, method), "size": 8},
            )
    states = {trial.state for trial in sweep.trials}
    soft = LIGHT["soft"]
    hollow = {"symbol": "circle-open", "size": 8, "color": soft, "line": {"width": 1.5}}
    tick = {"symbol": "line-ns-open", "size": 11, "color": soft, "line": {"width": 2}}
    if "pruned" in states:
        add_legend_entry(figure, "pruned", hollow)
    if "failed" in states:
        add_legend_entry(figure, "failed", tick)


def draw_best_of_k(sweep: SweepRecord) -> SweepPlot | None:
    """What k trials of each method are expected to reach; None below two trials."""
    import plotly.graph_objects as go

    objective, better = sweep.objectives[0], get_sign(sweep.objectives[0])
    figure = go.Figure()
    longest = 0
    for method in sweep.methods:
        found = list_scores(sweep, method)
        longest = max(longest, len(found))
        if not found:
            continue
        own, safe, k = get_colour(sweep, method), html.escape(method), range(1, len(found) + 1)
        expected = [scale_value(objective, y) for y in compute_expected_best(found, better)]
        observed = [scale_value(objective, y) for y in compute_best_so_far(found, better)]
        figure.add_scatter(
            x=list(k),
            y=observed,
            mode="lines",
            line={"color": own, "width": 1, "shape": "hv", "dash": "dot"},
            hovertemplate=f"{safe}: best of the first %{{x}} trials %{{y:.2f}}<extra></extra>",
            showlegend=False,
            legendgroup=method,
        )
        figure.add_scatter(
            x=list(k),
            y=expected,
            mode="lines+markers",
            name=method,
            legendgroup=method,
            line={"color": own, "width": 2},
            marker={"symbol": get_symbol(sweep, method), "size": 5},
            hovertemplate=f"{safe}: %{{x}} trials, %{{y:.2f}} expected<extra></extra>",
        )
    if longest < 2:
        return None
    style_figure(figure, HIGH + 40)
    step = max(1, -(-longest // 16))
    figure.update_xaxes(
        title_text="trials of the method", range=[0.5, longest + 0.5], tick0=step, dtick=step
    )
    figure.update_yaxes(title_text=f"best {format_objective(objective)}")
    figure.update_layout(showlegend=True)
    return SweepPlot("best_of_k", "Best of k trials", _BEST_OF_K, figure)


_BEST_OF_K = (
    "Solid: the expected best validation value of k trials drawn at random from a method's trials "
    "(Dodge et al. 2019; without replacement, Tang et al. 2020). Dotted: the best so far in the "
    "order in which they ran. Complete trials count with their value, pruned ones with their last "
    "report, failed ones as the worst value of the method. The expectation takes trials to be "
    "drawn independently of each other's results, as random, Sobol and grid search do; for a "
    "sampler that learns, as TPE does, read the dotted line."
)
