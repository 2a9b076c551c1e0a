"""Optuna's own pictures of each method's study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recsys.sweep.record import SearchAxis, SweepRecord
from recsys.sweep.report import optuna_study
from recsys.sweep.report.drawing import SweepPlot, set_axis_range, style_figure
from recsys.sweep.report.formatting import format_objective, format_parameter
from recsys.sweep.report.sensitivity import sort_axes

if TYPE_CHECKING:
    import optuna

ENOUGH = 4
"""Complete trials from which on a method's own pictures are drawn."""
PAIRED = 3
"""Most axes that are held against each other in the contour plot."""


def explain_missing(sweep: SweepRecord, method: str) -> str:
    """Why a method's own pictures are not drawn, in a sentence; empty where they are."""
    found = len(sweep.select_trials(method, "complete"))
    if found >= ENOUGH:
        return ""
    trials = "trial" if found == 1 else "trials"
    return f"{method}: not drawn with {found} complete {trials}; they need {ENOUGH}."


def draw_study_plots(sweep: SweepRecord, method: str) -> list[SweepPlot]:
    """A method's pictures; none below `ENOUGH` complete trials."""
    if explain_missing(sweep, method):
        return []
    sweep = sweep.select_method(method)
    with optuna_study.silence_optuna():
        made = optuna_study.make_study(sweep, method)
        out = [_draw_slices(sweep, method, made), _draw_history(sweep, method, made)]
        out += [_draw_parallel(sweep, method, made), _draw_contours(sweep, method, made)]
        if len(sweep.objectives) > 1:
            out.append(_draw_front(sweep, method))
        out.append(_draw_timeline(method, made))
    return [picture for picture in out if picture is not None]


def _list_shared_axes(sweep: SweepRecord, method: str) -> list[SearchAxis]:
    """The varied axes that every complete trial has, learning rates first."""
    names = {axis.name for axis in optuna_study.list_varied_axes(sweep, method)}
    complete = sweep.select_trials(method, "complete")
    return [
        axis
        for axis in sort_axes(sweep)
        if axis.name in names and all(axis.name in trial.values for trial in complete)
    ]


def _style_study_figure(figure: Any, high: int) -> Any:  # noqa: ANN401
    """Optuna's figure in the page's colours; the page has its title."""
    style_figure(figure, high)
    figure.update_layout(title=None, width=None, autosize=True, legend={"yref": "paper", "y": 1.02})
    figure.update_layout(legend={"yanchor": "bottom"})
    return figure


def _format_target_name(sweep: SweepRecord) -> str:
    return format_objective(sweep.objectives[0])


def _set_log_ticks(figure: Any) -> None:  # noqa: ANN401
    """Writes 1 and 3 times the powers of ten at logarithmic axes, instead of SI prefixes."""
    marks = [float(f"{m}e{power}") for power in range(-12, 13) for m in (1, 3)]
    texts = [format_parameter(mark) for mark in marks]
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.type == "log":
            axis.update(tickvals=marks, ticktext=texts)


def _draw_slices(sweep: SweepRecord, method: str, study: optuna.Study) -> SweepPlot | None:
    from optuna.visualization import plot_slice

    axes = [
        axis for axis in sort_axes(sweep) if axis in optuna_study.list_varied_axes(sweep, method)
    ]
    if not axes:
        return None
    names = [axis.name for axis in axes]
    figure = _style_study_figure(
        plot_slice(study, params=names, target_name=_format_target_name(sweep)), 300
    )
    places = {axis.title.text: axis for axis in figure.select_xaxes()}
    for axis in axes:
        if axis.kind != "choice":
            set_axis_range(places[axis.name], axis)
    caption = "Complete trials against each axis; the darker, the later."
    return SweepPlot(f"slice-{method}", f"{method}: slices", caption, figure, True)


def _draw_history(sweep: SweepRecord, method: str, study: optuna.Study) -> SweepPlot | None:
    from optuna.visualization import plot_optimization_history

    figure = _style_study_figure(
        plot_optimization_history(study, target_name=_format_target_name(sweep)), 300
    )
    # Nothing lies between two trials, so that the best so far is a step.
    figure.update_traces(line_shape="hv", selector={"mode": "lines"})
    caption = "Complete trials in the order in which they began, and the best so far."
    return SweepPlot(f"history-{method}", f"{method}: optimisation history", caption, figure, True)


def _draw_parallel(sweep: SweepRecord, method: str, study: optuna.Study) -> SweepPlot | None:
    from optuna.visualization import plot_parallel_coordinate

    axes = _list_shared_axes(sweep, method)
    if not axes:
        return None
    names = [axis.name for axis in axes]
    figure = _style_study_figure(
        plot_parallel_coordinate(study, params=names, target_name=_format_target_name(sweep)), 340
    )
    full = {
        name if len(name) < 20 else f"{name[:17]}...": name
        for name in (_format_target_name(sweep), *names)
    }
    texts = figure.layout.xaxis.ticktext or ()
    figure.update_xaxes(ticktext=[full.get(text, text) for text in texts], showline=False)
    caption = "A line is a complete trial; drag along an axis to keep the lines through a range."
    left = [axis.name for axis in optuna_study.list_varied_axes(sweep, method) if axis not in axes]
    if left:
        caption += f" Left out, since not every trial has it: {', '.join(left)}."
    return SweepPlot(f"parallel-{method}", f"{method}: parallel coordinates", caption, figure, True)


def _draw_contours(sweep: SweepRecord, method: str, study: optuna.Study) -> SweepPlot | None:
    from optuna.visualization import plot_contour

    axes = [axis for axis in _list_shared_axes(sweep, method) if axis.kind != "choice"][:PAIRED]
    if len(axes) < 2:
        return None
    names = [axis.name for axis in axes]
    figure = _style_study_figure(
        plot_contour(study, params=names, target_name=_format_target_name(sweep)), 260 * len(names)
    )
    _set_log_ticks(figure)
    caption = (
        "The objective between complete trials, interpolated: it says nothing beyond them. "
        f"Shown are the first {len(names)} axes that hold numbers."
    )
    return SweepPlot(f"contour-{method}", f"{method}: contours", caption, figure, True)


def _draw_front(sweep: SweepRecord, method: str) -> SweepPlot | None:
    from optuna.visualization import plot_pareto_front

    names = [format_objective(objective) for objective in sweep.objectives]
    study = optuna_study.make_study(sweep, method, first_only=False)
    figure = plot_pareto_front(study, target_names=names)
    caption = "Complete trials by both objectives; the method's own Pareto front in red."
    return SweepPlot(
        f"front-{method}",
        f"{method}: Pareto front",
        caption,
        _style_study_figure(figure, 340),
        True,
    )


def _draw_timeline(method: str, study: optuna.Study) -> SweepPlot | None:
    from optuna.visualization import plot_timeline

    figure = _style_study_figure(plot_timeline(study), 14 * len(study.trials) + 120)
    caption = "When each trial ran, and how it ended."
    return SweepPlot(f"timeline-{method}", f"{method}: timeline", caption, figure, True)
