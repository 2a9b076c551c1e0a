"""What all pictures of a sweep share: colours, axes, legends and what shows when pointed at."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recsys.compare.report.style import LIGHT
from recsys.compare.report.svg import COLOURS, compute_log_ticks
from recsys.sweep.record import SearchAxis, SweepRecord, TrialRecord
from recsys.sweep.report.formatting import (
    find_last_value,
    format_parameter,
    format_short_label,
    format_value,
    get_unit,
)

SYMBOLS = ("circle", "square", "diamond", "triangle-up")
"""Marks of the methods; another after every eight, when the colours begin anew."""
COLUMNS = 3
"""Most subplots side by side."""
HIGH = 320
"""Pixels of a row of subplots."""


@dataclass(frozen=True)
class SweepPlot:
    """A picture of a sweep.

    Attributes:
        name: Its key, unique in the sweep, without spaces.
        title: Its heading.
        caption: How it is read, in sentences.
        figure: A `plotly.graph_objects.Figure`.
        light: Keep its light colours on a dark page too: a scale of blues has no other.
    """

    name: str
    title: str
    caption: str
    figure: Any
    light: bool = False


def get_colour(sweep: SweepRecord, method: str) -> str:
    """A method's colour in every picture."""
    return LIGHT[f"c{sweep.methods.index(method) % COLOURS}"]


def get_symbol(sweep: SweepRecord, method: str) -> str:
    """A method's mark in every picture."""
    return SYMBOLS[sweep.methods.index(method) // COLOURS % len(SYMBOLS)]


def format_hover(sweep: SweepRecord, trial: TrialRecord) -> str:
    """What shows when a trial is pointed at; nothing in it is taken for markup."""
    objective = sweep.objectives[0]
    lines = [f"{trial.method} #{trial.number}, {trial.state}"]
    found = find_last_value(trial)
    if found is not None:
        own = get_unit(objective.name)
        lines.append(
            f"{format_short_label(objective)} {format_value(objective, found)} {own}".rstrip()
        )
    lines += [f"{name}: {format_parameter(each)}" for name, each in trial.values.items()]
    if trial.reason:
        lines.append(trial.reason if len(trial.reason) <= 120 else f"{trial.reason[:119]}…")
    return "<br>".join(html.escape(line) for line in lines)


def make_plot_grid(
    titles_x: Sequence[str], title_y: str | Sequence[str], rows: int, columns: int, shared: bool
) -> Any:  # noqa: ANN401
    """A figure of several plots, row by row.

    Args:
        titles_x: Below each plot.
        title_y: Beside the plots of the first column, or beside each.
        rows: Of plots.
        columns: Of plots.
        shared: Whether all have the same vertical scale.
    """
    from plotly.subplots import make_subplots

    high = HIGH * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all" if shared else False,
        vertical_spacing=min(0.9 / max(1, rows - 1), 85 / high),
        horizontal_spacing=0.03 if shared else 0.08,
    )
    for at, title in enumerate(titles_x):
        row, column = at // columns + 1, at % columns + 1
        figure.update_xaxes(title_text=title, row=row, col=column)
        own = title_y if isinstance(title_y, str) else title_y[at]
        if column == 1 or not isinstance(title_y, str):
            figure.update_yaxes(title_text=own, row=row, col=column)
    style_figure(figure, high)
    return figure


def style_figure(figure: Any, high: int) -> None:  # noqa: ANN401
    """Gives a figure the page's colours, and a legend above the plots.

    Args:
        figure: A `plotly.graph_objects.Figure`; it is changed.
        high: Pixels of the plots, without the legend.
    """
    figure.update_layout(
        template="none",
        height=high + 90,
        margin={"l": 64, "r": 16, "t": 56, "b": 56},
        paper_bgcolor=LIGHT["page"],
        plot_bgcolor=LIGHT["page"],
        font={"color": LIGHT["ink"], "size": 12, "family": "system-ui, sans-serif"},
        hoverlabel={"align": "left", "font": {"size": 12}},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "tracegroupgap": 4,
            "bgcolor": LIGHT["page"],
        },
    )
    line = {
        "gridcolor": LIGHT["grid"],
        "linecolor": LIGHT["rule"],
        "tickcolor": LIGHT["rule"],
        "zeroline": False,
        "automargin": True,
    }
    figure.update_xaxes(**line, title_standoff=8)
    figure.update_yaxes(**line, title_standoff=8)


def set_x_range(figure: Any, axis: SearchAxis, row: int, column: int) -> None:  # noqa: ANN401
    """The searched range of an axis as the horizontal scale of one plot.

    Args:
        figure: A `plotly.graph_objects.Figure`; it is changed.
        axis: Of the search space.
        row: Of the plot, from 1.
        column: Of the plot, from 1.
    """
    set_axis_range(next(figure.select_xaxes(row=row, col=column)), axis)


def set_axis_range(place: Any, axis: SearchAxis) -> None:  # noqa: ANN401
    """Gives one axis of a plot the searched range, and marks in our own notation.

    Args:
        place: An axis of a figure's layout; it is changed.
        axis: Of the search space.
    """
    if axis.low is None or axis.high is None:
        order = [format_parameter(each) for each in axis.choices]
        place.update(type="category", categoryorder="array", categoryarray=order)
        return
    low, high = axis.low, axis.high
    if axis.log:
        room = 0.05 * math.log10(high / low) or 0.1
        marks = _list_powers_of_two(axis) or compute_log_ticks(low, high)
        if len(marks) > 8:
            marks = [m for m in marks if math.isclose(m, 10 ** round(math.log10(m)))]
        place.update(
            type="log",
            range=[math.log10(low) - room, math.log10(high) + room],
            tickvals=marks,
            ticktext=[format_parameter(float(f"{mark:.6g}")) for mark in marks],
        )
        return
    room = 0.05 * (high - low) or 0.5
    place.update(type="linear", range=[low - room, high + room], nticks=7)


def _list_powers_of_two(axis: SearchAxis) -> list[float]:
    """Powers of two in the range of a logarithmic integer that begins with one, else none."""
    if axis.kind != "int" or not axis.low or not math.log2(axis.low).is_integer():
        return []
    high = axis.high or axis.low
    return [2.0**power for power in range(int(math.log2(axis.low)), int(math.log2(high)) + 1)]


def find_position(axis: SearchAxis, trial: TrialRecord) -> float | int | str | None:
    """Where a trial stands on an axis: a number, or a choice as text; None where it has none."""
    if axis.name not in trial.values:
        return None
    found = trial.values[axis.name]
    if axis.kind == "choice":
        return format_parameter(found)
    return None if isinstance(found, str | bool) else found


def add_legend_entry(figure: Any, name: str, marker: dict[str, object]) -> None:  # noqa: ANN401
    """An entry of the legend that no point of the plot stands for by itself."""
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name=name, marker=marker, legendgroup=name
    )


def compute_grid_size(count: int) -> tuple[int, int]:
    """Rows and columns for some plots."""
    columns = min(COLUMNS, count)
    return -(-count // columns), columns
