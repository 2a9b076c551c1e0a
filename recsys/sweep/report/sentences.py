"""What a sweep says in plain sentences: the best methods, their values, and range ends."""

from __future__ import annotations

import statistics
from collections import Counter

from recsys.sweep.record import SearchAxis, SweepRecord
from recsys.sweep.report import tables
from recsys.sweep.report.formatting import (
    format_parameter,
    format_short_label,
    format_value,
    get_sign,
    get_unit,
)
from recsys.sweep.report.sensitivity import (
    ENOUGH,
    NearBestRange,
    Role,
    compute_position,
    compute_width,
    find_near_best_range,
    infer_role,
    sort_axes,
)


def find_leader(sweep: SweepRecord) -> str | None:
    """The method that leads: by the test where it was read, else by its best trial."""
    found = compute_test_means(sweep)
    if found:
        return next(iter(found))
    better = get_sign(sweep.objectives[0])
    best = [(m, t) for m in sweep.methods if (t := sweep.find_best(m)) is not None]
    return max(best, key=lambda each: better * each[1].objectives[0], default=(None, None))[0]


def compute_test_means(sweep: SweepRecord) -> dict[str, float]:
    """The mean test metric of each method's closing runs, the best first; empty before these."""
    metric = tables.find_test_metric(sweep)
    means = {
        method: statistics.fmean(test[metric] for test in tests)
        for method, tests in sweep.tests.items()
        if metric and tests
    }
    return dict(sorted(means.items(), key=lambda each: -each[1]))


def describe_verdict(sweep: SweepRecord) -> str:
    """What a reader wants to know first: which method, and whether it beats the baselines."""
    found, metric = compute_test_means(sweep), tables.find_test_metric(sweep)
    if not found:
        return describe_best(sweep)
    (best, top), *others = found.items()
    seeds = len(sweep.tests[best])
    text = f"{best} is best on the test: {metric} {100 * top:.2f} percent"
    text += f" ({seeds} seeds)" if seeds > 1 else " (one seed)"
    if others:
        text += f"; then {', '.join(f'{name} {100 * each:.2f}' for name, each in others)}"
    floors = {name: of[metric] for name, of in sweep.floors.items() if metric in of}
    if not floors:
        return f"{text}."
    name = max(floors, key=lambda each: floors[each])
    floor = f"{name}, {100 * floors[name]:.2f}"
    above = [method for method, each in found.items() if each > floors[name]]
    if not above:
        none = {1: "It is not", 2: "Neither is"}.get(len(found), "None is")
        return f"{text}. {none} above {floor}."
    if len(above) < len(found):
        return (
            f"{text}. Only {', '.join(above)} {'is' if len(above) == 1 else 'are'} above {floor}."
        )
    every = {1: "It is", 2: "Both are"}.get(len(found), "All are")
    return f"{text}. {every} above the best baseline, {floor}."


def describe_best(sweep: SweepRecord) -> str:
    """Which method is best so far, in one sentence or two."""
    objective = sweep.objectives[0]
    better, own = get_sign(objective), get_unit(objective.name)
    found = [(m, best) for m in sweep.methods if (best := sweep.find_best(m)) is not None]
    if not found:
        return "No trial is complete yet, so that there is nothing to compare."
    found.sort(key=lambda each: -better * each[1].objectives[0])
    method, best = found[0]
    value = format_value(objective, best.objectives[0])
    text = f"{method} has the best {objective.label}, {value} {own}"
    out = f"{text.rstrip()} (trial #{best.number})"
    if len(found) > 1:
        others = [f"{name} {format_value(objective, t.objectives[0])}" for name, t in found[1:]]
        out += f"; then {', '.join(others)}"
    if len(sweep.methods) > 1 and not sweep.tests:
        out += ". Each is the best of many trials, and so too high: closing runs tell the methods"
        out += " apart, on test cases"
    return f"{out}."


def describe_incomplete(sweep: SweepRecord) -> list[str]:
    """A sentence for each method of which no trial is complete, with the most frequent reason."""
    out = []
    for method in sweep.methods:
        found = sweep.select_trials(method)
        if found and sweep.find_best(method) is None:
            reasons = Counter(trial.reason for trial in found if trial.reason)
            most = f", mostly: {reasons.most_common(1)[0][0].rstrip('.')}" if reasons else ""
            count = "one trial" if len(found) == 1 else f"{len(found)} trials"
            out.append(f"no trial of {method} is complete ({count}{most}).")
    return out


def describe_choices(sweep: SweepRecord, kind: Role) -> list[str]:
    """For each method, its best trial's values of the axes of a kind."""
    out = []
    for method in sweep.methods:
        best = sweep.find_best(method)
        axes = [
            a for a in sort_axes(sweep) if infer_role(a) == kind and best and a.name in best.values
        ]
        if best is not None and axes:
            values = ", ".join(
                f"{a.get_key(method)} {format_parameter(best.values[a.name])}" for a in axes
            )
            out.append(f"{method}: {values}.")
    return out


def describe_sensitivity(sweep: SweepRecord) -> list[str]:
    """For each learning rate, how wide a range each method stays near its best in."""
    out = []
    for axis in sort_axes(sweep):
        if infer_role(axis) == "learning rate" and axis.kind != "choice":
            found = [
                (m, of)
                for m in sweep.methods
                if (of := find_near_best_range(sweep, m, axis)) is not None
            ]
            out += [_describe_range(sweep, axis, method, of) for method, of in found]
            out += _compare_ranges(axis, [(method, of) for method, of in found if of.enough])
    return out


def _describe_range(sweep: SweepRecord, axis: SearchAxis, method: str, found: NearBestRange) -> str:
    """How wide the range near one method's best is."""
    name, metric = axis.get_key(method), format_short_label(sweep.objectives[0])
    if not found.enough:
        trials = "trial is" if found.trials == 1 else "trials are"
        return (
            f"{method}: {found.trials} complete {trials} too few to tell a range of "
            f"{name}; it needs {ENOUGH}."
        )
    if found.low == found.high:
        return (
            f"{method}: no other {name} that was tried comes within 5 % of the best {metric}, "
            f"at {format_parameter(found.best)}."
        )
    width = compute_width(axis, found)
    shown = f"a factor of {width:.3g}" if axis.log else f"{100 * width:.0f} % of the range"
    return (
        f"{method}: {name} from {format_parameter(found.low)} to {format_parameter(found.high)} "
        f"({shown}) "
        f"holds the trials within 5 % of the best {metric}, {found.near} of {found.trials}."
    )


def _compare_ranges(axis: SearchAxis, found: list[tuple[str, NearBestRange]]) -> list[str]:
    """Which method is the least and which the most sensitive, where they differ."""
    widths = sorted((compute_width(axis, of), method) for method, of in found)
    if len(widths) < 2 or widths[0][0] == widths[-1][0]:
        return []
    return [
        f"By this range {widths[-1][1]} is the least and {widths[0][1]} the most sensitive to "
        f"{axis.label}."
    ]


def describe_edges(sweep: SweepRecord) -> list[str]:
    """A warning for each best trial next to an end of the searched range."""
    out = []
    for axis in sort_axes(sweep):
        for method in sweep.methods:
            found = find_near_best_range(sweep, method, axis)
            if found is not None and found.edge is not None:
                out.append(_describe_edge(axis, method, found))
    return out


def _describe_edge(axis: SearchAxis, method: str, found: NearBestRange) -> str:
    low, high = format_parameter(axis.low), format_parameter(axis.high)
    share = compute_position(axis, found.best)
    share = 100 * min(share, 1 - share)
    text = (
        f"{method}: the best {axis.get_key(method)}, {format_parameter(found.best)}, lies at the "
        f"{found.edge} end of the searched range ({low} to {high}; within "
        f"{max(0.0, share):.0f} % of it)"
    )
    if found.edge == "lower" and axis.low == 0:
        return f"{text}, below which it cannot go: little or none of it did best."
    return f"{text}: the best value may lie outside; widen the range {_describe_direction(found)}."


def _describe_direction(found: NearBestRange) -> str:
    return "downwards" if found.edge == "lower" else "upwards"
