"""How sensitive a method is to an axis: its envelope, the range near its best, and range ends.

The question is what a value of one axis allows, given the best of the other choices. Trials draw
all axes at once, so that most values of an axis were tried with poor choices elsewhere. The
envelope leaves these out: from both ends of the axis towards the best trial, it keeps each trial
that beats all trials farther out. It thereby takes the best reachable value to rise to one peak
and to fall behind it, needs no width of a window, and goes through trials that were run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recsys.sweep.record import SearchAxis, SweepRecord, TrialRecord
from recsys.sweep.report.formatting import get_sign

NEAR = 0.05
"""Trials within this share of the best count as near it."""
EDGE = 0.1
"""Share of the searched range at each end in which a best trial is reported."""
ENOUGH = 8
"""Complete trials from which on a range near the best is read off."""

Role = Literal["learning rate", "regularisation", "other"]

_REGULARISATION = (
    "weight_decay",
    "dropout",
    "l2_sp",
    "distillation",
    "smoothing",
    "patience",
    "decay",
)


def infer_role(axis: SearchAxis) -> Role:
    """What an axis is, by its name: the configuration has no mark for it."""
    last = axis.name.rpartition(".")[2].lower()
    if last == "lr" or last.endswith("_lr") or last.startswith("lr_") or "learning_rate" in last:
        return "learning rate"
    if any(word in last for word in _REGULARISATION):
        return "regularisation"
    return "other"


def sort_axes(sweep: SweepRecord) -> list[SearchAxis]:
    """The axes: learning rates, then regularisation, then others; numbers before choices."""
    place = {"learning rate": 0, "regularisation": 1, "other": 2}
    return sorted(sweep.axes, key=lambda axis: (place[infer_role(axis)], axis.kind == "choice"))


def convert_to_float(value: object) -> float | None:
    """A value as a number, None where it is none."""
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def compute_position(axis: SearchAxis, value: float) -> float:
    """Where a number lies in the searched range, in the scale of the search: 0 to 1.

    Raises:
        ValueError: The axis is a choice.
    """
    if axis.low is None or axis.high is None:
        raise ValueError(f"{axis.name} is a choice; its values have no place")
    low, high = axis.low, axis.high
    if axis.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


Point = tuple[float, float]


def list_points(sweep: SweepRecord, method: str, axis: SearchAxis) -> list[Point]:
    """(value of the axis, first objective) of the complete trials that have the axis."""
    found = [
        (convert_to_float(t.values.get(axis.name)), t)
        for t in sweep.select_trials(method, "complete")
    ]
    return [(x, trial.objectives[0]) for x, trial in found if x is not None]


def compute_envelope(found: Sequence[Point], better: int) -> list[Point]:
    """The trials that beat all trials farther from the best, by their value of the axis.

    Args:
        found: (value of the axis, objective), in any order.
        better: 1 where more is better, -1 where less is.
    """
    by_x: dict[float, float] = {}
    for x, y in found:
        by_x[x] = y if x not in by_x else better * max(better * by_x[x], better * y)
    rising = sorted(by_x.items())
    kept = {*_select_records(rising, better), *_select_records(rising[::-1], better)}
    return sorted(kept)


def _select_records(found: Sequence[Point], better: int) -> list[Point]:
    """Those that beat all before them."""
    out: list[Point] = []
    for point in found:
        if not out or better * point[1] > better * out[-1][1]:
            out.append(point)
    return out


@dataclass(frozen=True)
class NearBestRange:
    """How far an axis may be from its best value at little loss.

    Attributes:
        best: Value of the axis in the best trial.
        low: Smallest value with a trial near the best.
        high: Largest value with a trial near the best.
        near: How many trials are near the best; the best is one of them.
        trials: How many complete trials have the axis.
        edge: The end of the searched range next to which the best lies, if it does.
    """

    best: float
    low: float
    high: float
    near: int
    trials: int
    edge: Literal["lower", "upper"] | None

    @property
    def enough(self) -> bool:
        """Whether there are trials enough to read a range off."""
        return self.trials >= ENOUGH


def find_near_best_range(sweep: SweepRecord, method: str, axis: SearchAxis) -> NearBestRange | None:
    """The range near the best of a method; None for a choice and without a complete trial.

    Near is a value of the objective within 5 % of the best one. The range is that of trials that
    were run, so that the true one is at least as wide where trials lie far apart.
    """
    found, better = list_points(sweep, method, axis), get_sign(sweep.objectives[0])
    if axis.kind == "choice" or not found:
        return None
    top = max(found, key=lambda point: better * point[1])
    limit = top[1] - better * NEAR * abs(top[1])
    near = [x for x, y in found if better * y >= better * limit]
    return NearBestRange(
        top[0], min(near), max(near), len(near), len(found), find_edge(axis, top[0])
    )


def find_edge(axis: SearchAxis, value: float) -> Literal["lower", "upper"] | None:
    """The end of the searched range within a tenth of which a value lies, in its scale."""
    at = compute_position(axis, value)
    if at <= EDGE:
        return "lower"
    return "upper" if at >= 1 - EDGE else None


def compute_width(axis: SearchAxis, found: NearBestRange) -> float:
    """The width of the range near the best: a factor on a log scale, else a share of the range."""
    if axis.log:
        return found.high / found.low
    return compute_position(axis, found.high) - compute_position(axis, found.low)


def find_best_by_choice(
    trials: Sequence[TrialRecord], axis: SearchAxis, better: int
) -> dict[str, float]:
    """The best complete trial's objective at each value of a choice that was tried, as text."""
    from recsys.sweep.report.formatting import format_parameter

    out: dict[str, float] = {}
    for trial in trials:
        if trial.state != "complete" or axis.name not in trial.values:
            continue
        name, y = format_parameter(trial.values[axis.name]), trial.objectives[0]
        out[name] = y if name not in out else better * max(better * out[name], better * y)
    return out
