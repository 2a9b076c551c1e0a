"""Numbers of a sweep as people read them: values of objectives, parameters and times."""

from __future__ import annotations

import math

from recsys.compare.measures.cost import format_plain
from recsys.sweep.record import SweepObjective, SweepRecord, TrialRecord, Value

UNITS = (
    ("seconds", "s"),
    ("_mb", "MiB"),
    ("mb_sampled", "MiB"),
    ("flops", "FLOPs"),
)
"""Ends of names in `result.json`, and the unit of what they name."""


def is_percent(objective: SweepObjective) -> bool:
    """Whether an objective is a metric from 0 to 1, which is shown in percent."""
    return objective.name == "validation"


def get_unit(name: str) -> str:
    """The unit of a figure by its dotted name, empty for a count."""
    if name.startswith("validation"):
        return "percent"
    return next((unit for end, unit in UNITS if name.endswith(end)), "")


def format_objective(objective: SweepObjective) -> str:
    """The objective with its unit, as the title of an axis or a column."""
    own = get_unit(objective.name)
    return f"{objective.label}, {own}" if own else objective.label


def format_short_label(objective: SweepObjective) -> str:
    """The objective without the word that says on which part it was measured."""
    return objective.label.removeprefix("validation ")


def scale_value(objective: SweepObjective, value: float) -> float:
    """A value as pictures place it: in percent where it is a share."""
    return 100 * value if is_percent(objective) else value


def format_value(objective: SweepObjective, found: float) -> str:
    """A value without its unit."""
    if not math.isfinite(found):
        return "-"
    if is_percent(objective):
        return f"{100 * found:.2f}"
    return format_plain(found) if found >= 0 else f"{found:.3g}"


def format_parameter(found: Value) -> str:
    """A value of the search space: three figures, as in 3e-4, true, null or mean."""
    if found is None:
        return "null"
    if isinstance(found, bool):
        return "true" if found else "false"
    if not isinstance(found, float):
        return str(found)
    if not found or 1e-3 <= abs(found) < 1e4:
        return f"{found:.3g}" if abs(found) < 1e3 else f"{found:.0f}"
    digits, power = f"{found:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def format_parameters(sweep: SweepRecord, trial: TrialRecord) -> str:
    """The values of a trial with the keys that were set."""
    return ", ".join(
        f"{key} {format_parameter(each)}" for key, each in sweep.get_key_values(trial).items()
    )


def format_duration(seconds: float) -> str:
    """A time, as coarse as is read: 38 s, 41 min, 2 h 10 min, 3 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def find_last_value(trial: TrialRecord) -> float | None:
    """The first objective where the trial ended: its result, or its last report if pruned.

    None for one that failed or runs, and for one pruned before it reported.
    """
    if trial.state == "complete":
        return trial.objectives[0]
    if trial.state == "pruned" and trial.reports:
        return trial.reports[-1][1]
    return None


def list_retried(sweep: SweepRecord, method: str) -> frozenset[int]:
    """Numbers of the trials that another repeats: they are no draw of their own."""
    return frozenset(t.retry_of for t in sweep.select_trials(method) if t.retry_of is not None)


def list_ended(sweep: SweepRecord, method: str) -> list[TrialRecord]:
    """The trials that ended and count towards the budget: not those that another repeats."""
    again = list_retried(sweep, method)
    found = sweep.select_trials(method, "complete", "pruned", "failed")
    return [trial for trial in found if trial.number not in again]


def get_sign(objective: SweepObjective) -> int:
    """1 where more is better, else -1."""
    return 1 if objective.direction == "maximize" else -1
