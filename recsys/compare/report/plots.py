"""The plots of a comparison: Pareto front, differences, learning curves and slices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from recsys import printable
from recsys.compare.measures.cost import format_plain
from recsys.compare.outcome import Comparison, MethodRow, SliceResult
from recsys.compare.report.sentences import format_points
from recsys.compare.report.svg import (
    COLOURS,
    AxisScale,
    Box,
    SvgDrawing,
    draw_shape,
    make_scale,
    measure_text,
    place_labels,
    spread_places,
    truncate_text,
)
from recsys.compare.report.tables import TITLES

WIDE = 860.0
NAMES = 300.0
"""Most room for the names beside a plot."""


def assign_series(comparison: Comparison) -> dict[str, int]:
    """The number of each method, by which it keeps its colour in all plots."""
    labels = [row.label for row in comparison.rows if not row.floor]
    return {label: at for at, label in enumerate(labels)}


def render_legend(comparison: Comparison) -> str:
    """Marks and names of all methods."""
    entries = "".join(
        f'<li><svg class="key" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">'
        f'<g class="mark s{at % COLOURS}">{draw_shape(7, 7, at, 5)}</g></svg>'
        f"{printable.escape_html(label)}</li>"
        for label, at in assign_series(comparison).items()
    )
    return f'<ul class="legend">{entries}</ul>'


def _compute_interval(row: MethodRow) -> tuple[float, float, float] | None:
    """Mean and interval of a method in percent."""
    found = row.interval
    return None if found is None else (100 * found.mean, 100 * found.low, 100 * found.high)


def draw_pareto(comparison: Comparison) -> str:
    """Quality against seconds, the front joined by a line; empty without any cost."""
    found, unit = [], comparison.basis.unit
    for row in comparison.rows:
        cost, interval = row.cost.get(comparison.basis.key), _compute_interval(row)
        if cost and interval is not None:
            found.append((row.label, cost, interval))
    if not found:
        return ""
    metric, numbers = comparison.question.metric, assign_series(comparison)
    floors = [
        (row.label, 100 * spread.mean)
        for row in comparison.rows
        if row.floor and (spread := row.metrics[metric]) is not None
    ]
    drawing = SvgDrawing(WIDE, 440, f"{metric} against {unit}; the Pareto front is marked")
    x = make_scale([cost for _, cost, _ in found], 62, WIDE - 20, log=True, room=0.12)
    heights = [value for _, _, interval in found for value in interval]
    y = make_scale([*heights, *(value for _, value in floors)], 388, 14)
    drawing.draw_axes(x, y, f"{unit} of one run (log scale)", f"{metric}, percent")
    places = [(x(cost), y(mean)) for _, cost, (mean, _, _) in found]
    taken = _draw_baselines(drawing, floors, x, y, places)
    front = sorted((cost, mean) for label, cost, (mean, _, _) in found if label in comparison.front)
    # Between two of its points the front is a step: nobody measured what lies between them.
    steps = [(x(cost), y(mean)) for cost, mean in front]
    joined = [p for a, b in itertools.pairwise(steps) for p in (a, (b[0], a[1]))]
    if len(front) > 1:
        drawing.draw_path([*joined, steps[-1]], "front")
    names = [truncate_text(label, NAMES) for label, _, _ in found]
    taken += [(x(c) - 2, y(high), x(c) + 2, y(low)) for _, c, (_, low, high) in found]
    taken += [(x.start, y(value) - 1, x.end, y(value) + 1) for _, value in floors]
    labels = place_labels(names, places, (x.start, y.end, x.end, y.start), taken)
    for (label, cost, (mean, low, high)), name, place, at in zip(
        found, names, places, labels, strict=True
    ):
        kind = numbers[label] % COLOURS
        drawing.draw_line(place[0], y(low), place[0], y(high), f"whisker s{kind}")
        if at[3]:
            drawing.draw_line(*place, at[0], at[1], "lead")
        title = f"{label}: {mean:.2f} ({low:.2f} to {high:.2f}) %, {format_plain(cost)} {unit}"
        drawing.draw_mark(*place, numbers[label], title, size=6)
        bold = "name front-name" if label in comparison.front else "name"
        drawing.draw_text(at[0], at[1], name, bold, at[2])
    return drawing.render()


def _draw_baselines(
    drawing: SvgDrawing,
    floors: Sequence[tuple[str, float]],
    x: AxisScale,
    y: AxisScale,
    marks: Sequence[tuple[float, float]],
) -> list[Box]:
    """Lines of what needs no run of its own, with names at the emptier side; their boxes."""
    names = [truncate_text(label, NAMES) for label, _ in floors]
    middles = spread_places([y(value) - 9 for _, value in floors], 15, y.end + 8, y.start - 8)
    wide = max((measure_text(name) for name in names), default=0.0) + 8
    left = sum(mark[0] < x.start + wide + 8 for mark in marks)
    right = sum(mark[0] > x.end - wide - 8 for mark in marks)
    at, anchor = (x.start + 4, "start") if left <= right else (x.end - 4, "end")
    boxes = []
    for (_, value), name, middle in zip(floors, names, middles, strict=True):
        drawing.draw_line(x.start, y(value), x.end, y(value), "floor")
        drawing.draw_text(at, middle, name, "tick", anchor)
        edge = at if anchor == "start" else at - measure_text(name)
        boxes.append((edge, middle - 8, edge + measure_text(name), middle + 8))
    return boxes


def draw_forest(comparison: Comparison) -> str:
    """The differences with their intervals; empty where there is one method."""
    found = comparison.differences
    if not found:
        return ""
    question, numbers = comparison.question, assign_series(comparison)
    room = min(NAMES, max(measure_text(d.label) for d in found) + 8)
    values = [0.0, *(100 * v for d in found for v in (d.found.low, d.found.high))]
    if question.margin is not None:
        values += [question.margin, -question.margin]
    x = make_scale(values, room + 16, WIDE - 190)
    drawing = SvgDrawing(
        WIDE, 30.0 * len(found) + 56, f"differences in {question.metric} to {question.baseline}"
    )
    bottom = drawing.high - 40
    if question.margin is not None:
        left, right = x(-question.margin), x(question.margin)
        drawing.draw_rect(left, 4, right - left, bottom - 4, "margin")
    drawing.draw_axes(x, None, f"{question.metric} minus {question.baseline}, percent points")
    drawing.draw_line(x(0), 4, x(0), bottom, "zero")
    for at, difference in enumerate(found):
        c, y = difference.found, 22 + 30.0 * at
        drawing.draw_text(room + 4, y, truncate_text(difference.label, room), "name", "end")
        kind = f"whisker s{numbers[difference.label] % COLOURS}"
        drawing.draw_line(x(100 * c.low), y, x(100 * c.high), y, kind)
        low, high = format_points(c.low, True), format_points(c.high, True)
        text = f"{format_points(c.difference, True)} ({low} to {high})"
        drawing.draw_mark(
            x(100 * c.difference), y, numbers[difference.label], f"{difference.label}: {text}"
        )
        drawing.draw_text(WIDE - 4, y, text, "value", "end")
    return drawing.render()


def draw_curves(comparison: Comparison) -> str:
    """The validation metric along each training, a line a run; empty without logs."""
    found = comparison.curves
    if not found:
        return ""
    numbers = assign_series(comparison)
    labels = list(dict.fromkeys(curve.label for curve in found))
    room = min(NAMES, max(measure_text(label) for label in labels) + 20)
    drawing = SvgDrawing(
        WIDE, 400, f"{comparison.curve_metric} on the validation part while training"
    )
    x = make_scale([s for curve in found for s in curve.seconds], 62, WIDE - room - 16, room=0.02)
    y = make_scale([100 * v for curve in found for v in curve.values], 348, 14)
    drawing.draw_axes(
        x, y, "seconds of training, validations not counted",
        f"validation {comparison.curve_metric}, percent",
    )  # fmt: skip
    ends: dict[str, list[float]] = {}
    for curve in found:
        at = numbers[curve.label]
        line = [(x(s), y(100 * v)) for s, v in zip(curve.seconds, curve.values, strict=True)]
        title = f"{curve.label}, seed {curve.seed}: {100 * curve.values[-1]:.2f} % at the end"
        drawing.draw_path(line, f"curve s{at % COLOURS}", title)
        for place in line:
            drawing.draw_mark(*place, at, title, size=2.5)
        ends.setdefault(curve.label, []).append(line[-1][1])
    means = [sum(ends[label]) / len(ends[label]) for label in labels]
    for label, height in zip(labels, spread_places(means, 17, y.end, y.start), strict=True):
        drawing.draw_mark(x.end + 12, height, numbers[label], label, size=4)
        drawing.draw_text(x.end + 20, height, truncate_text(label, room - 8), "name")
    return drawing.render()


def draw_slices(comparison: Comparison) -> list[str]:
    """A plot for each column that the cases were sliced by."""
    columns = dict.fromkeys(part.column for part in comparison.parts)
    return [
        _draw_slice(comparison, column, [p for p in comparison.parts if p.column == column])
        for column in columns
    ]


def _draw_slice(comparison: Comparison, column: str, found: Sequence[SliceResult]) -> str:
    """Each method's mean and interval in each part, one below the other."""
    numbers, metric = assign_series(comparison), comparison.question.metric
    names = [f"{part.label} ({part.cases:,})" for part in found]
    room = min(NAMES, max(measure_text(name) for name in names) + 8)
    high = 13.0
    block = high * len(numbers) + 12
    title = TITLES.get(column, column)
    drawing = SvgDrawing(WIDE, block * len(found) + 52, f"{metric} by {title}")
    rows = [row for part in found for row in part.rows]
    values = [100 * row.mean for row in rows]
    values += [100 * end for r in rows if r.interval for end in (r.interval.low, r.interval.high)]
    x = make_scale(values, room + 16, WIDE - 20)
    drawing.draw_axes(x, None, f"{metric}, percent, by {title} (cases)")
    for at, (part, name) in enumerate(zip(found, names, strict=True)):
        top = 6 + block * at
        if at:
            drawing.draw_line(8, top, WIDE - 20, top, "between")
        drawing.draw_text(room + 4, top + block / 2, truncate_text(name, room), "name", "end")
        for number, row in enumerate(part.rows):
            y = top + 6 + high * (number + 0.5)
            text = f"{row.label}, {part.label}: {100 * row.mean:.2f}"
            if row.interval is not None:
                low, far = 100 * row.interval.low, 100 * row.interval.high
                kind = numbers[row.label] % COLOURS
                drawing.draw_line(x(low), y, x(far), y, f"whisker s{kind}")
                text += f" ({low:.2f} to {far:.2f})"
            drawing.draw_mark(x(100 * row.mean), y, numbers[row.label], f"{text} %", size=4)
    return drawing.render()
