"""A small drawing of axes, marks and labels as inline SVG; colours are left to the page.

A series is known by its number: the classes `s0` to `s7` carry its colour, and its mark has another
shape after every eight, so that no two of up to 32 look alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from recsys import printable

SIZE = 12.0
"""Height of the letters, in the drawing's units."""
WIDE = 0.58
"""Width of a letter, in heights: a little more than a sans serif has on average."""
COLOURS = 8
Box = tuple[float, float, float, float]


def measure_text(text: str) -> float:
    """About how wide a text is."""
    return WIDE * SIZE * len(text)


def truncate_text(text: str, room: float) -> str:
    """A text that fits into a width, its middle left out where it is longer."""
    letters = max(5, int(room / (WIDE * SIZE)))
    if len(text) <= letters:
        return text
    left = (letters - 1) // 2
    return f"{text[:left]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - (letters - 1 - left) :]}"


def compute_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers within a span, about as many as asked for."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count - 1)
    base = 10.0 ** math.floor(math.log10(rough))
    step = base * min((1, 2, 5, 10), key=lambda m: abs(math.log(m * base / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def compute_log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within a span of numbers above zero, with as many multiples as it needs.

    Over three powers and more none, else 2 and 5 times each; all nine where that leaves fewer than
    three, as between 3 and 9.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for many in ((1,), (1, 2, 5), tuple(range(1, 10))):
        if len(found) < 3 or (many == (1, 2, 5) and math.log10(high / low) < 3):
            values = [m * 10.0**at for at in range(first, last + 1) for m in many]
            found = [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
    return found


@dataclass(frozen=True)
class AxisScale:
    """Places of numbers along an axis.

    Attributes:
        low: Number at `start`.
        high: Number at `end`.
        start: Place of `low`.
        end: Place of `high`; below `start` for an axis that points up.
        log: Whether equal factors are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place of a number."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def compute_ticks(self, count: int = 6) -> list[float]:
        """Round numbers on the axis."""
        found = compute_log_ticks(self.low, self.high) if self.log else []
        return found if len(found) > 2 else compute_ticks(self.low, self.high, count)


def make_scale(
    values: Sequence[float], start: float, end: float, *, log: bool = False, room: float = 0.06
) -> AxisScale:
    """A scale on which all values lie, with some room at both ends."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** room, 1.25)
        return AxisScale(low / factor, high * factor, start, end, log=True)
    span = (high - low) or abs(high) or 1.0
    return AxisScale(low - room * span, high + room * span, start, end)


def spread_places(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places moved as little as keeps `gap` between them, in their order, within low and high.

    Where they do not fit, they are as far apart as there is room.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / max(1, len(places) - 1)) if len(places) > 1 else gap
    order = sorted(range(len(places)), key=lambda at: (places[at], at))
    moved = [max(low, places[at]) for at in order]
    for at in range(1, len(moved)):
        moved[at] = max(moved[at], moved[at - 1] + gap)
    moved[-1] = min(moved[-1], high)
    for at in range(len(moved) - 2, -1, -1):
        moved[at] = min(moved[at], moved[at + 1] - gap)
    out = [0.0] * len(places)
    for at, place in zip(order, moved, strict=True):
        out[at] = place
    return out


def compute_overlap(a: Box, b: Box) -> float:
    """Area that two boxes (left, top, right, bottom) share."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high)


@dataclass
class SvgDrawing:
    """A drawing in the making.

    Attributes:
        wide: Its width.
        high: Its height.
        label: What it shows, for those who do not see it.
        parts: Its elements so far.
    """

    wide: float
    high: float
    label: str
    parts: list[str] = field(default_factory=list)

    def draw_line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line; `kind` is its class."""
        self.parts.append(
            f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        )

    def draw_rect(self, x: float, y: float, wide: float, high: float, kind: str) -> None:
        """A filled rectangle."""
        self.parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'
        )

    def draw_path(self, points: Sequence[tuple[float, float]], kind: str, title: str = "") -> None:
        """A line through points."""
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.parts.append(f'<path class="{kind}" d="{d}">{_render_title(title)}</path>')

    def draw_text(
        self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", turn: int = 0
    ) -> None:
        """A text whose middle height is at y."""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        name = f' class="{kind}"' if kind else ""
        self.parts.append(
            f'<text{name} x="{x:.1f}" y="{y + 0.35 * SIZE:.1f}" text-anchor="{anchor}"{turned}>'
            f"{printable.escape_html(text)}</text>"
        )

    def draw_mark(self, x: float, y: float, series: int, title: str, size: float = 5.0) -> None:
        """The mark of a series, with a text that shows when pointed at."""
        self.parts.append(
            f'<g class="mark s{series % COLOURS}">{draw_shape(x, y, series, size)}'
            f"{_render_title(title)}</g>"
        )

    def draw_axes(self, x: AxisScale, y: AxisScale | None, x_title: str, y_title: str = "") -> None:
        """Grid, numbers and titles of the axes; without y only those of x."""
        top, bottom = (y.end, y.start) if y is not None else (4.0, self.high - 40)
        for value in x.compute_ticks():
            at = x(value)
            self.draw_line(at, top, at, bottom, "grid")
            self.draw_text(at, bottom + 13, format_number(value), "tick", "middle")
        self.draw_text((x.start + x.end) / 2, bottom + 32, x_title, "title", "middle")
        if y is not None:
            for value in y.compute_ticks():
                self.draw_line(x.start, y(value), x.end, y(value), "grid")
                self.draw_text(x.start - 7, y(value), format_number(value), "tick", "end")
            self.draw_text(13, (y.start + y.end) / 2, y_title, "title", "middle", turn=-90)

    def render(self) -> str:
        """The SVG element."""
        return (
            f'<svg viewBox="0 0 {self.wide:.0f} {self.high:.0f}" role="img" '
            f'aria-label="{printable.escape_html(self.label)}" style="max-width:{self.wide:.0f}px">'
            + "".join(self.parts)
            + "</svg>"
        )


def draw_shape(x: float, y: float, series: int, size: float) -> str:
    """Circle, square, diamond or triangle."""
    kind = series // COLOURS % 4
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    corners = {
        1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2: [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        3: [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
    }[kind]
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def _render_title(text: str) -> str:
    return f"<title>{printable.escape_html(text)}</title>" if text else ""


def format_number(value: float) -> str:
    """A number at a tick."""
    if value and abs(value) >= 10000:
        for limit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= limit:
                return f"{value / limit:g}{sign}"
    return f"{value:g}"


def place_labels(
    texts: Sequence[str],
    points: Sequence[tuple[float, float]],
    inside: Box,
    avoid: Sequence[Box] = (),
) -> list[tuple[float, float, str, bool]]:
    """Where labels of points stand: beside their point, over no other label or mark.

    Args:
        texts: The labels.
        points: Their points.
        inside: The box that no label leaves.
        avoid: Boxes of other texts.

    Returns:
        For each x, y, the anchor of the text, and whether it stands apart from its point, so that
        a line should lead to it.
    """
    # Marks are covered by nothing; lines may be crossed where there is no other place.
    taken: list[Box] = [*avoid, *((x - 7, y - 7, x + 7, y + 7) for x, y in points)]
    out: list[tuple[float, float, str, bool]] = [(0.0, 0.0, "start", False)] * len(texts)
    half = SIZE * 0.7
    for at in sorted(range(len(texts)), key=lambda i: (points[i][1], i)):
        x, y = points[at]
        wide = measure_text(texts[at])
        found: list[tuple[float, Box, tuple[float, float, str, bool]]] = []
        for rank, (dx, dy, anchor) in enumerate(_PLACES):
            left = {"start": x + dx, "end": x + dx - wide, "middle": x + dx - wide / 2}[anchor]
            box = (left, y + dy - half, left + wide, y + dy + half)
            outside = (box[2] - box[0]) * (box[3] - box[1]) - compute_overlap(box, inside)
            cost = 50 * outside + 10 * sum(compute_overlap(box, other) for other in taken) + rank
            found.append((cost, box, (x + dx, y + dy, anchor, abs(dy) > 20)))
        _, box, out[at] = min(found, key=lambda each: each[0])
        taken.append(box)
    return out


_PLACES = [
    (10.0, 0.0, "start"),
    (-10.0, 0.0, "end"),
    (0.0, -16.0, "middle"),
    (0.0, 16.0, "middle"),
    (8.0, -13.0, "start"),
    (8.0, 13.0, "start"),
    (-8.0, -13.0, "end"),
    (-8.0, 13.0, "end"),
    *(
        (dx, sign * dy, anchor)
        for dy in (30.0, 44.0, 58.0, 72.0, 86.0)
        for sign in (-1.0, 1.0)
        for dx, anchor in ((12.0, "start"), (-12.0, "end"))
    ),
]
"""Places of a label beside its point, the better ones first."""
