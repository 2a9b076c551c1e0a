"""Optuna's own pictures of each method's study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys.sweep.record import Axis, Sweep
from recsys.sweep.report import optuna_study
from recsys.sweep.report.drawing import Picture, finish, rescale
from recsys.sweep.report.formatting import parameter, titled
from recsys.sweep.report.sensitivity import ordered

if TYPE_CHECKING:
    import optuna

ENOUGH = 4
"""Complete trials from which on a method's own pictures are drawn."""
PAIRED = 3
"""Most axes that are held against each other in the contour plot."""


def why_not(sweep: Sweep, method: str) -> str:
    """Why a method's own pictures are not drawn, in a sentence; empty where they are."""
    found = len(sweep.of(method, "complete"))
    if found >= ENOUGH:
        return ""
    trials = "trial" if found == 1 else "trials"
    return f"{method}: not drawn with {found} complete {trials}; they need {ENOUGH}."


def pictures(sweep: Sweep, method: str) -> list[Picture]:
    """A method's pictures; none below `ENOUGH` complete trials."""
    if why_not(sweep, method):
        return []
    sweep = sweep.own(method)
    with optuna_study.quiet():
        made = optuna_study.study(sweep, method)
        out = [_slice(sweep, method, made), _history(sweep, method, made)]
        out += [_parallel(sweep, method, made), _contour(sweep, method, made)]
        if len(sweep.objectives) > 1:
            out.append(_front(sweep, method))
        out.append(_timeline(method, made))
    return [picture for picture in out if picture is not None]


def _varied(sweep: Sweep, method: str) -> list[Axis]:
    """The varied axes that every complete trial has, learning rates first."""
    names = {axis.name for axis in optuna_study.axes(sweep, method)}
    complete = sweep.of(method, "complete")
    return [
        axis
        for axis in ordered(sweep)
        if axis.name in names and all(axis.name in trial.values for trial in complete)
    ]


def _finished(figure: Any, high: int) -> Any:  # noqa: ANN401
    """Optuna's figure in the page's colours; the page has its title."""
    finish(figure, high)
    figure.update_layout(title=None, width=None, autosize=True, legend={"yref": "paper", "y": 1.02})
    figure.update_layout(legend={"yanchor": "bottom"})
    return figure


def _name(sweep: Sweep) -> str:
    return titled(sweep.objectives[0])


def _plain_logs(figure: Any) -> None:  # noqa: ANN401
    """Writes 1 and 3 times the powers of ten at logarithmic axes, instead of SI prefixes."""
    marks = [float(f"{m}e{power}") for power in range(-12, 13) for m in (1, 3)]
    texts = [parameter(mark) for mark in marks]
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.type == "log":
            axis.update(tickvals=marks, ticktext=texts)


def _slice(sweep: Sweep, method: str, study: optuna.Study) -> Picture | None:
    from optuna.visualization import plot_slice

    axes = [axis for axis in ordered(sweep) if axis in optuna_study.axes(sweep, method)]
    if not axes:
        return None
    names = [axis.name for axis in axes]
    figure = _finished(plot_slice(study, params=names, target_name=_name(sweep)), 300)
    places = {axis.title.text: axis for axis in figure.select_xaxes()}
    for axis in axes:
        if axis.kind != "choice":
            rescale(places[axis.name], axis)
    caption = "Complete trials against each axis; the darker, the later."
    return Picture(f"slice-{method}", f"{method}: slices", caption, figure, True)


def _history(sweep: Sweep, method: str, study: optuna.Study) -> Picture | None:
    from optuna.visualization import plot_optimization_history

    figure = _finished(plot_optimization_history(study, target_name=_name(sweep)), 300)
    # Nothing lies between two trials, so that the best so far is a step.
    figure.update_traces(line_shape="hv", selector={"mode": "lines"})
    caption = "Complete trials in the order in which they began, and the best so far."
    return Picture(f"history-{method}", f"{method}: optimisation history", caption, figure, True)


def _parallel(sweep: Sweep, method: str, study: optuna.Study) -> Picture | None:
    from optuna.visualization import plot_parallel_coordinate

    axes = _varied(sweep, method)
    if not axes:
        return None
    names = [axis.name for axis in axes]
    figure = _finished(plot_parallel_coordinate(study, params=names, target_name=_name(sweep)), 340)
    full = {name if len(name) < 20 else f"{name[:17]}...": name for name in (_name(sweep), *names)}
    texts = figure.layout.xaxis.ticktext or ()
    figure.update_xaxes(ticktext=[full.get(text, text) for text in texts], showline=False)
    caption = "A line is a complete trial; drag along an axis to keep the lines through a range."
    left = [axis.name for axis in optuna_study.axes(sweep, method) if axis not in axes]
    if left:
        caption += f" Left out, since not every trial has it: {', '.join(left)}."
    return Picture(f"parallel-{method}", f"{method}: parallel coordinates", caption, figure, True)


def _contour(sweep: Sweep, method: str, study: optuna.Study) -> Picture | None:
    from optuna.visualization import plot_contour

    axes = [axis for axis in _varied(sweep, method) if axis.kind != "choice"][:PAIRED]
    if len(axes) < 2:
        return None
    names = [axis.name for axis in axes]
    figure = _finished(
        plot_contour(study, params=names, target_name=_name(sweep)), 260 * len(names)
    )
    _plain_logs(figure)
    caption = (
        "The objective between complete trials, interpolated: it says nothing beyond them. "
        f"Shown are the first {len(names)} axes that hold numbers."
    )
    return Picture(f"contour-{method}", f"{method}: contours", caption, figure, True)


def _front(sweep: Sweep, method: str) -> Picture | None:
    from optuna.visualization import plot_pareto_front

    names = [titled(objective) for objective in sweep.objectives]
    study = optuna_study.study(sweep, method, first_only=False)
    figure = plot_pareto_front(study, target_names=names)
    caption = "Complete trials by both objectives; the method's own Pareto front in red."
    return Picture(
        f"front-{method}", f"{method}: Pareto front", caption, _finished(figure, 340), True
    )


def _timeline(method: str, study: optuna.Study) -> Picture | None:
    from optuna.visualization import plot_timeline

    figure = _finished(plot_timeline(study), 14 * len(study.trials) + 120)
    caption = "When each trial ran, and how it ended."
    return Picture(f"timeline-{method}", f"{method}: timeline", caption, figure, True)
