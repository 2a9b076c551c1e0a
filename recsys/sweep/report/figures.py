"""The pictures that answer a sweep's question: sensitivity to each axis, and best-of-k curves."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

from recsys.compare.report.style import LIGHT
from recsys.sweep.record import Axis, Sweep, Trial
from recsys.sweep.report import best_of_k as bestofk
from recsys.sweep.report.drawing import (
    HIGH,
    Picture,
    colour,
    finish,
    grid_of,
    hover,
    legend_only,
    placed,
    scale_x,
    subplots,
    symbol,
)
from recsys.sweep.report.formatting import drawn, last, sign, titled
from recsys.sweep.report.sensitivity import best_by_choice, envelope, ordered, points
from recsys.sweep.report.training_plots import cost, fitting, learning, regularisation


def pictures(sweep: Sweep) -> list[Picture]:
    """All of our own pictures that the sweep has something for, the answers first."""
    made = (sensitivity, best_of_k, cost, regularisation, fitting, learning)
    found = (make(sweep) for make in made)
    return [picture for picture in found if picture is not None]


def axes_with_trials(sweep: Sweep) -> list[Axis]:
    """The axes that have a value in any trial, learning rates first."""
    return [a for a in ordered(sweep) if any(a.name in trial.values for trial in sweep.trials)]


def sensitivity(sweep: Sweep) -> Picture | None:
    """Every trial against each axis, with the envelope; None without a value to draw."""
    values = [y for trial in sweep.trials if (y := last(trial)) is not None]
    axes = axes_with_trials(sweep)
    if not values or not axes:
        return None
    objective = sweep.objectives[0]
    heights = [drawn(objective, y) for y in values]
    low, high = min(heights), max(heights)
    span = (high - low) or abs(high) or 1.0
    failed = any(trial.state == "failed" for trial in sweep.trials)
    bottom = low - (0.16 if failed else 0.06) * span
    rows, columns = grid_of(len(axes))
    figure = subplots([axis.label for axis in axes], titled(objective), rows, columns, shared=True)
    for at, axis in enumerate(axes):
        where = {"row": at // columns + 1, "col": at % columns + 1}
        scale_x(figure, axis, where["row"], where["col"])
        for method in sweep.methods:
            for trace in _trials(sweep, method, axis, low - 0.11 * span):
                figure.add_scatter(**trace, showlegend=False, legendgroup=method, **where)
    figure.update_yaxes(range=[bottom, high + 0.08 * span])
    _legend(figure, sweep)
    return Picture("sensitivity", "Sensitivity to each axis", _CAPTION, figure)


_CAPTION = (
    "Filled: complete trials, the best of each method ringed. Hollow: pruned trials, at their last "
    "report. Ticks at the bottom: failed trials. A line is a method's envelope: from both ends of "
    "the axis towards its best trial, it joins each complete trial that beats all complete trials "
    "farther out, so that trials spoilt by their other choices do not count. It takes the best "
    "reachable value to rise to one peak and fall behind it. A flat envelope is a method that is "
    "not sensitive to the axis. For a choice, a bar marks its best complete trial. The horizontal "
    "scale is the searched range."
)


def _trials(sweep: Sweep, method: str, axis: Axis, bottom: float) -> Iterator[dict[str, Any]]:
    """The traces of a method's trials on an axis, and of its envelope."""
    objective, own = sweep.objectives[0], colour(sweep, method)
    mark, best = symbol(sweep, method), sweep.best(method)

    def trace(trials: Sequence[Trial], marker: dict[str, Any], y: float | None) -> dict[str, Any]:
        return {
            "x": [placed(axis, trial) for trial in trials],
            "y": [drawn(objective, last(t) or 0.0) if y is None else y for t in trials],
            "text": [hover(sweep, trial) for trial in trials],
            "hovertemplate": "%{text}<extra></extra>",
            "mode": "markers",
            "marker": {"color": own, **marker},
        }

    found = [trial for trial in sweep.of(method) if placed(axis, trial) is not None]
    of_state: dict[str, list[Trial]] = {}
    for trial in found:
        of_state.setdefault(trial.state, []).append(trial)
    if axis.kind == "choice":
        yield from _choice(sweep, axis, found, own)
    else:
        hull = envelope(points(sweep, method, axis), sign(objective))
        yield {
            "x": [x for x, _ in hull],
            "y": [drawn(objective, y) for _, y in hull],
            "mode": "lines",
            "line": {"color": own, "width": 2},
            "hoverinfo": "skip",
        }
    pruned = [trial for trial in of_state.get("pruned", []) if trial.reports]
    if pruned:
        hollow = {"symbol": f"{mark}-open", "size": 8, "line": {"width": 1.5}}
        yield trace(pruned, hollow, None)
    if complete := of_state.get("complete", []):
        yield trace(complete, {"symbol": mark, "size": 8}, None)
    if failed := of_state.get("failed", []):
        yield trace(failed, {"symbol": "line-ns-open", "size": 11, "line": {"width": 2}}, bottom)
    if best is not None and placed(axis, best) is not None:
        ring = {"symbol": f"{mark}-open", "size": 14, "color": LIGHT["ink"], "line": {"width": 1.5}}
        yield trace([best], ring, None)


def _choice(
    sweep: Sweep, axis: Axis, trials: Sequence[Trial], own: str
) -> Iterator[dict[str, Any]]:
    """A bar at the best complete trial of each choice."""
    objective = sweep.objectives[0]
    best = best_by_choice(trials, axis, sign(objective))
    yield {
        "x": list(best),
        "y": [drawn(objective, y) for y in best.values()],
        "mode": "markers",
        "marker": {"symbol": "line-ew-open", "size": 30, "color": own, "line": {"width": 2.5}},
        "hoverinfo": "skip",
    }


def _legend(figure: Any, sweep: Sweep) -> None:  # noqa: ANN401
    """Methods by colour, states by mark."""
    for method in sweep.methods:
        if sweep.of(method):
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="lines+markers",
                name=method,
                legendgroup=method,
                line={"color": colour(sweep, method), "width": 2},
                marker={"symbol": symbol(sweep, method), "size": 8},
            )
    states = {trial.state for trial in sweep.trials}
    soft = LIGHT["soft"]
    hollow = {"symbol": "circle-open", "size": 8, "color": soft, "line": {"width": 1.5}}
    tick = {"symbol": "line-ns-open", "size": 11, "color": soft, "line": {"width": 2}}
    if "pruned" in states:
        legend_only(figure, "pruned", hollow)
    if "failed" in states:
        legend_only(figure, "failed", tick)


def best_of_k(sweep: Sweep) -> Picture | None:
    """What k trials of each method are expected to reach; None below two trials."""
    import plotly.graph_objects as go

    objective, better = sweep.objectives[0], sign(sweep.objectives[0])
    figure = go.Figure()
    longest = 0
    for method in sweep.methods:
        found = bestofk.draws(sweep, method)
        longest = max(longest, len(found))
        if not found:
            continue
        own, safe, k = colour(sweep, method), html.escape(method), range(1, len(found) + 1)
        expected = [drawn(objective, y) for y in bestofk.expected_best(found, better)]
        observed = [drawn(objective, y) for y in bestofk.best_so_far(found, better)]
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
            marker={"symbol": symbol(sweep, method), "size": 5},
            hovertemplate=f"{safe}: %{{x}} trials, %{{y:.2f}} expected<extra></extra>",
        )
    if longest < 2:
        return None
    finish(figure, HIGH + 40)
    step = max(1, -(-longest // 16))
    figure.update_xaxes(
        title_text="trials of the method", range=[0.5, longest + 0.5], tick0=step, dtick=step
    )
    figure.update_yaxes(title_text=f"best {titled(objective)}")
    figure.update_layout(showlegend=True)
    return Picture("best_of_k", "Best of k trials", _BEST_OF_K, figure)


_BEST_OF_K = (
    "Solid: the expected best validation value of k trials drawn at random from a method's trials "
    "(Dodge et al. 2019; without replacement, Tang et al. 2020). Dotted: the best so far in the "
    "order in which they ran. Complete trials count with their value, pruned ones with their last "
    "report, failed ones as the worst value of the method. The expectation takes trials to be "
    "drawn independently of each other's results, as random, Sobol and grid search do; for a "
    "sampler that learns, as TPE does, read the dotted line."
)
