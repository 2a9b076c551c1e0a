"""The tables of a sweep's page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from recsys.compare.measures.cost import format_plain
from recsys.compare.report.table import TextTable
from recsys.sweep.record import SweepRecord, TrialRecord
from recsys.sweep.report.formatting import (
    find_last_value,
    format_duration,
    format_objective,
    format_parameter,
    format_parameters,
    format_short_label,
    format_value,
    get_unit,
    list_ended,
    list_retried,
)
from recsys.sweep.report.sensitivity import (
    compute_width,
    find_near_best_range,
    infer_role,
    sort_axes,
)

TRAINED = "cost.trained_parameters"
TESTED = 6
"""Most test metrics in a table; the others are in the comparison."""


def make_brief_table(sweep: SweepRecord) -> TextTable:
    """What each method found, in few columns, with the baselines below."""
    one, metric = sweep.objectives[0], find_test_metric(sweep)
    rates = [axis for axis in sort_axes(sweep) if infer_role(axis) == "learning rate"]
    head = ["method", *(["learning rate"] if rates else []), one.label]
    head += [f"test {metric}"] if metric else []
    head += ["trials", "pruned", "failed", "s a trial"]
    rows = []
    for method in sweep.methods:
        best, again = sweep.find_best(method), list_retried(sweep, method)
        row = [method]
        if rates:
            found = [best.values[a.name] for a in rates if best and a.name in best.values]
            row.append(", ".join(map(format_parameter, found)) or "-")
        row.append(format_value(one, best.objectives[0]) if best else "-")
        row += [_format_spread([t[metric] for t in sweep.tests.get(method, ())])] if metric else []
        failures = sum(t.number not in again for t in sweep.select_trials(method, "failed"))
        row += [
            str(len(list_ended(sweep, method))),
            str(len(sweep.select_trials(method, "pruned"))),
            str(failures),
        ]
        rows.append([*row, _format_seconds(sweep, method)[0]])
    floors = [(name, of[metric]) for name, of in sweep.floors.items() if metric and metric in of]
    for name, found_at in sorted(floors, key=lambda each: -each[1]):
        empty = ["-"] * (head.index(f"test {metric}") - 1)
        rows.append([name, *empty, f"{100 * found_at:.2f}", *["-"] * 4])
    own = get_unit(one.name)
    title = f"{sweep.name}, {sweep.budget} for each method" + (f"; {own}" if own else "")
    note = "Test: mean \N{PLUS-MINUS SIGN} standard deviation (seeds)." if metric else ""
    rules = (len(sweep.methods),) if floors else ()
    return TextTable(title, head, rows, note, words=1, rules=rules)


def make_method_table(sweep: SweepRecord) -> TextTable:
    """What each method found, and at what cost."""
    one = sweep.objectives[0]
    two = sweep.objectives[1:]
    head = ["method", "best trial's parameters", "complete", "pruned", "failed"]
    head += ["running"] if any(t.state == "running" for t in sweep.trials) else []
    head += [f"best {format_objective(one)}", *(f"its {format_objective(other)}" for other in two)]
    head += ["its trial", "seconds a trial (mean)", "all trials"]
    sized = any(TRAINED in trial.figures for trial in sweep.trials)
    head += ["trained parameters"] if sized else []
    metric = find_test_metric(sweep)
    head += [f"test {format_short_label(one)}, percent (seeds)"] if metric else []
    rows = []
    for method in sweep.methods:
        best, again = sweep.find_best(method), list_retried(sweep, method)
        row = [method, format_parameters(sweep, best) if best else "-"]
        row += [
            str(len(sweep.select_trials(method, "complete"))),
            str(len(sweep.select_trials(method, "pruned"))),
        ]
        row.append(str(sum(t.number not in again for t in sweep.select_trials(method, "failed"))))
        if "running" in head:
            row.append(str(len(sweep.select_trials(method, "running"))))
        row += [
            format_value(o, best.objectives[at]) if best else "-"
            for at, o in enumerate([one, *two])
        ]
        row += [f"#{best.number}" if best else "-", *_format_seconds(sweep, method)]
        if sized:
            row.append(
                format_plain(best.figures[TRAINED]) if best and TRAINED in best.figures else "-"
            )
        row += (
            [_format_spread([test[metric] for test in sweep.tests.get(method, ())])]
            if metric
            else []
        )
        rows.append(row)
    note = f"Budget: {sweep.budget} for each method."
    repeated = sum(len(list_retried(sweep, method)) for method in sweep.methods)
    if repeated:
        note += f" {repeated} lost and repeated, which count once."
    if metric:
        note += " Test: mean and standard deviation over the seeds of the closing runs."
    return TextTable("Methods", head, rows, note, words=2)


def _format_seconds(sweep: SweepRecord, method: str) -> list[str]:
    """Mean seconds of the trials that ended with a value, and the time of all."""
    found = [t.seconds for t in sweep.select_trials(method, "complete", "pruned")]
    spent = sum(t.seconds for t in sweep.select_trials(method, "complete", "pruned", "failed"))
    return [format_plain(statistics.fmean(found)) if found else "-", format_duration(spent)]


def find_test_metric(sweep: SweepRecord) -> str:
    """The test metric that the first objective names, empty where none was tested."""
    metric = format_short_label(sweep.objectives[0])
    tests = [test for tests in sweep.tests.values() for test in tests]
    return metric if tests and all(metric in test for test in tests) else ""


def _format_spread(values: Sequence[float], counted: bool = True) -> str:
    """Mean and standard deviation in percent, and how many where asked for."""
    found = [100 * value for value in values if value == value]
    if not found:
        return "-"
    mean = f"{statistics.fmean(found):.2f}"
    if len(found) > 1:
        mean += f" \N{PLUS-MINUS SIGN} {statistics.stdev(found):.2f}"
    return f"{mean} ({len(found)})" if counted else mean


def make_test_table(sweep: SweepRecord) -> TextTable | None:
    """The test metrics of the closing runs; None before these."""
    found = [test for tests in sweep.tests.values() for test in tests]
    if not found:
        return None
    own = format_short_label(sweep.objectives[0])
    names = [name for name in found[0] if "/" not in name and all(name in t for t in found)]
    names = sorted(names, key=lambda name: name != own)[:TESTED]
    rows = [
        [
            method,
            str(len(of)),
            *(_format_spread([test[name] for test in of], False) for name in names),
        ]
        for method in sweep.methods
        if (of := sweep.tests.get(method, ()))
    ]
    return TextTable(
        "Test metrics of the closing runs, percent: mean \N{PLUS-MINUS SIGN} standard deviation",
        ["method", "seeds", *names],
        rows,
        "The best trial's parameters and steps, with new seeds; the test part was read only here.",
    )


def make_sensitivity_table(sweep: SweepRecord) -> TextTable | None:
    """How far each axis may be from its best at little loss; None without numbers."""
    rows: list[list[str]] = []
    rules: list[int] = []
    for axis in sort_axes(sweep):
        found = [(method, find_near_best_range(sweep, method, axis)) for method in sweep.methods]
        rules.append(len(rows))
        for method, of in found:
            if of is None:
                continue
            width = compute_width(axis, of)
            shown = f"factor {width:.3g}" if axis.log else f"{100 * width:.0f} % of the range"
            ends = (
                [format_parameter(of.low), format_parameter(of.high), shown]
                if of.enough
                else ["-"] * 3
            )
            row = [
                axis.get_key(method),
                method,
                format_parameter(of.best),
                *ends,
                f"{of.near} of {of.trials}",
            ]
            rows.append([*row, f"{of.edge} end" if of.edge else ""])
    if not rows:
        return None
    return TextTable(
        "Sensitivity: values within 5 % of the method's best",
        ["axis", "method", "best", "from", "to", "width", "trials", "best lies at"],
        rows,
        "From the lowest to the highest value of the axis in a complete trial whose objective is "
        "within 5 % of the best one. Trials were drawn on all axes at once: where few lie near "
        "the best, the true range may be wider. Not told below 8 complete trials.",
        words=2,
        rules=tuple(rules),
    )


def make_failure_table(sweep: SweepRecord) -> TextTable | None:
    """The failed trials and why; None without any."""
    rows = []
    for trial in sweep.trials:
        if trial.state == "failed":
            again = trial.number in list_retried(sweep, trial.method)
            row = [trial.method, trial.reason or "none recorded", format_parameters(sweep, trial)]
            rows.append([*row, f"#{trial.number}", "yes" if again else "no"])
    if not rows:
        return None
    return TextTable(
        "Failed trials", ["method", "reason", "parameters", "trial", "repeated"], rows, words=3
    )


def make_trial_table(sweep: SweepRecord) -> TextTable:
    """Every trial: a column for each axis that any of them has."""
    shared = [a for a in sort_axes(sweep) if any(a.name in t.values for t in sweep.trials)]
    axes = [axis.name for axis in shared]
    two = sweep.objectives[1:]
    why = any(trial.reason or trial.warning for trial in sweep.trials)
    head = [
        "method",
        "state",
        *(["why"] if why else []),
        "trial",
        format_objective(sweep.objectives[0]),
    ]
    head += [
        *(format_objective(objective) for objective in two),
        *(axis.label for axis in shared),
        "epochs",
        "seconds",
    ]
    rows = []
    for trial in sweep.trials:
        found = find_last_value(trial)
        row = [
            trial.method,
            trial.state,
            *([trial.reason or trial.warning] if why else []),
            str(trial.number),
        ]
        row.append("-" if found is None else format_value(sweep.objectives[0], found))
        row += [_format_objective_value(trial, at, sweep) for at, _ in enumerate(two, start=1)]
        row += [
            format_parameter(trial.values[name]) if name in trial.values else "-" for name in axes
        ]
        rows.append([*row, f"{trial.epochs:g}", f"{trial.seconds:.0f}"])
    note = "A pruned trial has its last report. Click on the head of a column to sort by it."
    return TextTable("All trials", head, rows, note, words=3 if why else 2)


def _format_objective_value(trial: TrialRecord, at: int, sweep: SweepRecord) -> str:
    found = trial.objectives
    return format_value(sweep.objectives[at], found[at]) if len(found) > at else "-"


def make_status_table(sweep: SweepRecord, left: dict[str, float | None]) -> TextTable:
    """How far each method is.

    Args:
        sweep: As it stands.
        left: Seconds of trials that each method has before it, None where that is not known.
    """
    one = sweep.objectives[0]
    rows = []
    for method in sweep.methods:
        best, again = sweep.find_best(method), list_retried(sweep, method)
        done = len(list_ended(sweep, method))
        failures = sum(t.number not in again for t in sweep.select_trials(method, "failed"))
        own = left[method]
        rows.append(
            [method, str(done) if sweep.planned is None else f"{done} of {sweep.planned}"]
            + [str(len(sweep.select_trials(method, state))) for state in ("running", "pruned")]
            + [str(failures), format_value(one, best.objectives[0]) if best else "-"]
            + [_format_seconds(sweep, method)[0], "-" if own is None else format_duration(own)]
        )
    shown = get_unit(one.name)
    head = ["method", "done", "running", "pruned", "failed"]
    head += [f"best {format_short_label(one)}" + (f", {shown}" if shown else "")]
    return TextTable(f"{sweep.name}: {sweep.budget}", [*head, "s a trial", "trial time left"], rows)
