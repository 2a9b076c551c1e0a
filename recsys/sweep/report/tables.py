"""The tables of a sweep's page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from recsys.compare.measures.cost import plain
from recsys.compare.report.table import Table
from recsys.sweep.record import Sweep, Trial
from recsys.sweep.report.formatting import (
    duration,
    ended,
    last,
    lost,
    parameter,
    parameters,
    short,
    titled,
    unit,
    value,
)
from recsys.sweep.report.sensitivity import factor, ordered, reach, role

TRAINED = "cost.trained_parameters"
TESTED = 6
"""Most test metrics in a table; the others are in the comparison."""


def brief(sweep: Sweep) -> Table:
    """What each method found, in few columns, with the baselines below."""
    one, metric = sweep.objectives[0], tested(sweep)
    rates = [axis for axis in ordered(sweep) if role(axis) == "learning rate"]
    head = ["method", *(["learning rate"] if rates else []), one.label]
    head += [f"test {metric}"] if metric else []
    head += ["trials", "pruned", "failed", "s a trial"]
    rows = []
    for method in sweep.methods:
        best, again = sweep.best(method), lost(sweep, method)
        row = [method]
        if rates:
            found = [best.values[a.name] for a in rates if best and a.name in best.values]
            row.append(", ".join(map(parameter, found)) or "-")
        row.append(value(one, best.objectives[0]) if best else "-")
        row += [_spread([t[metric] for t in sweep.tests.get(method, ())])] if metric else []
        failures = sum(t.number not in again for t in sweep.of(method, "failed"))
        row += [str(len(ended(sweep, method))), str(len(sweep.of(method, "pruned"))), str(failures)]
        rows.append([*row, _seconds(sweep, method)[0]])
    floors = [(name, of[metric]) for name, of in sweep.floors.items() if metric and metric in of]
    for name, found_at in sorted(floors, key=lambda each: -each[1]):
        empty = ["-"] * (head.index(f"test {metric}") - 1)
        rows.append([name, *empty, f"{100 * found_at:.2f}", *["-"] * 4])
    own = unit(one.name)
    title = f"{sweep.name}, {sweep.budget} for each method" + (f"; {own}" if own else "")
    note = "Test: mean \N{PLUS-MINUS SIGN} standard deviation (seeds)." if metric else ""
    rules = (len(sweep.methods),) if floors else ()
    return Table(title, head, rows, note, words=1, rules=rules)


def methods(sweep: Sweep) -> Table:
    """What each method found, and at what cost."""
    one = sweep.objectives[0]
    two = sweep.objectives[1:]
    head = ["method", "best trial's parameters", "complete", "pruned", "failed"]
    head += ["running"] if any(t.state == "running" for t in sweep.trials) else []
    head += [f"best {titled(one)}", *(f"its {titled(other)}" for other in two)]
    head += ["its trial", "seconds a trial (mean)", "all trials"]
    sized = any(TRAINED in trial.figures for trial in sweep.trials)
    head += ["trained parameters"] if sized else []
    metric = tested(sweep)
    head += [f"test {short(one)}, percent (seeds)"] if metric else []
    rows = []
    for method in sweep.methods:
        best, again = sweep.best(method), lost(sweep, method)
        row = [method, parameters(sweep, best) if best else "-"]
        row += [str(len(sweep.of(method, "complete"))), str(len(sweep.of(method, "pruned")))]
        row.append(str(sum(t.number not in again for t in sweep.of(method, "failed"))))
        if "running" in head:
            row.append(str(len(sweep.of(method, "running"))))
        row += [value(o, best.objectives[at]) if best else "-" for at, o in enumerate([one, *two])]
        row += [f"#{best.number}" if best else "-", *_seconds(sweep, method)]
        if sized:
            row.append(plain(best.figures[TRAINED]) if best and TRAINED in best.figures else "-")
        row += [_spread([test[metric] for test in sweep.tests.get(method, ())])] if metric else []
        rows.append(row)
    note = f"Budget: {sweep.budget} for each method."
    repeated = sum(len(lost(sweep, method)) for method in sweep.methods)
    if repeated:
        note += f" {repeated} lost and repeated, which count once."
    if metric:
        note += " Test: mean and standard deviation over the seeds of the closing runs."
    return Table("Methods", head, rows, note, words=2)


def _seconds(sweep: Sweep, method: str) -> list[str]:
    """Mean seconds of the trials that ended with a value, and the time of all."""
    found = [t.seconds for t in sweep.of(method, "complete", "pruned")]
    spent = sum(t.seconds for t in sweep.of(method, "complete", "pruned", "failed"))
    return [plain(statistics.fmean(found)) if found else "-", duration(spent)]


def tested(sweep: Sweep) -> str:
    """The test metric that the first objective names, empty where none was tested."""
    metric = short(sweep.objectives[0])
    tests = [test for tests in sweep.tests.values() for test in tests]
    return metric if tests and all(metric in test for test in tests) else ""


def _spread(values: Sequence[float], counted: bool = True) -> str:
    """Mean and standard deviation in percent, and how many where asked for."""
    found = [100 * value for value in values if value == value]
    if not found:
        return "-"
    mean = f"{statistics.fmean(found):.2f}"
    if len(found) > 1:
        mean += f" \N{PLUS-MINUS SIGN} {statistics.stdev(found):.2f}"
    return f"{mean} ({len(found)})" if counted else mean


def tests(sweep: Sweep) -> Table | None:
    """The test metrics of the closing runs; None before these."""
    found = [test for tests in sweep.tests.values() for test in tests]
    if not found:
        return None
    own = short(sweep.objectives[0])
    names = [name for name in found[0] if "/" not in name and all(name in t for t in found)]
    names = sorted(names, key=lambda name: name != own)[:TESTED]
    rows = [
        [method, str(len(of)), *(_spread([test[name] for test in of], False) for name in names)]
        for method in sweep.methods
        if (of := sweep.tests.get(method, ()))
    ]
    return Table(
        "Test metrics of the closing runs, percent: mean \N{PLUS-MINUS SIGN} standard deviation",
        ["method", "seeds", *names],
        rows,
        "The best trial's parameters and steps, with new seeds; the test part was read only here.",
    )


def near(sweep: Sweep) -> Table | None:
    """How far each axis may be from its best at little loss; None without numbers."""
    rows: list[list[str]] = []
    rules: list[int] = []
    for axis in ordered(sweep):
        found = [(method, reach(sweep, method, axis)) for method in sweep.methods]
        rules.append(len(rows))
        for method, of in found:
            if of is None:
                continue
            width = factor(axis, of)
            shown = f"factor {width:.3g}" if axis.log else f"{100 * width:.0f} % of the range"
            ends = [parameter(of.low), parameter(of.high), shown] if of.enough else ["-"] * 3
            row = [axis.key(method), method, parameter(of.best), *ends, f"{of.near} of {of.trials}"]
            rows.append([*row, f"{of.edge} end" if of.edge else ""])
    if not rows:
        return None
    return Table(
        "Sensitivity: values within 5 % of the method's best",
        ["axis", "method", "best", "from", "to", "width", "trials", "best lies at"],
        rows,
        "From the lowest to the highest value of the axis in a complete trial whose objective is "
        "within 5 % of the best one. Trials were drawn on all axes at once: where few lie near "
        "the best, the true range may be wider. Not told below 8 complete trials.",
        words=2,
        rules=tuple(rules),
    )


def failed(sweep: Sweep) -> Table | None:
    """The failed trials and why; None without any."""
    rows = []
    for trial in sweep.trials:
        if trial.state == "failed":
            again = trial.number in lost(sweep, trial.method)
            row = [trial.method, trial.reason or "none recorded", parameters(sweep, trial)]
            rows.append([*row, f"#{trial.number}", "yes" if again else "no"])
    if not rows:
        return None
    return Table(
        "Failed trials", ["method", "reason", "parameters", "trial", "repeated"], rows, words=3
    )


def trials(sweep: Sweep) -> Table:
    """Every trial: a column for each axis that any of them has."""
    shared = [a for a in ordered(sweep) if any(a.name in t.values for t in sweep.trials)]
    axes = [axis.name for axis in shared]
    two = sweep.objectives[1:]
    why = any(trial.reason or trial.warning for trial in sweep.trials)
    head = ["method", "state", *(["why"] if why else []), "trial", titled(sweep.objectives[0])]
    head += [
        *(titled(objective) for objective in two),
        *(axis.label for axis in shared),
        "epochs",
        "seconds",
    ]
    rows = []
    for trial in sweep.trials:
        found = last(trial)
        row = [
            trial.method,
            trial.state,
            *([trial.reason or trial.warning] if why else []),
            str(trial.number),
        ]
        row.append("-" if found is None else value(sweep.objectives[0], found))
        row += [_second(trial, at, sweep) for at, _ in enumerate(two, start=1)]
        row += [parameter(trial.values[name]) if name in trial.values else "-" for name in axes]
        rows.append([*row, f"{trial.epochs:g}", f"{trial.seconds:.0f}"])
    note = "A pruned trial has its last report. Click on the head of a column to sort by it."
    return Table("All trials", head, rows, note, words=3 if why else 2)


def _second(trial: Trial, at: int, sweep: Sweep) -> str:
    found = trial.objectives
    return value(sweep.objectives[at], found[at]) if len(found) > at else "-"


def status(sweep: Sweep, left: dict[str, float | None]) -> Table:
    """How far each method is.

    Args:
        sweep: As it stands.
        left: Seconds of trials that each method has before it, None where that is not known.
    """
    one = sweep.objectives[0]
    rows = []
    for method in sweep.methods:
        best, again = sweep.best(method), lost(sweep, method)
        done = len(ended(sweep, method))
        failures = sum(t.number not in again for t in sweep.of(method, "failed"))
        own = left[method]
        rows.append(
            [method, str(done) if sweep.planned is None else f"{done} of {sweep.planned}"]
            + [str(len(sweep.of(method, state))) for state in ("running", "pruned")]
            + [str(failures), value(one, best.objectives[0]) if best else "-"]
            + [_seconds(sweep, method)[0], "-" if own is None else duration(own)]
        )
    shown = unit(one.name)
    head = ["method", "done", "running", "pruned", "failed"]
    head += [f"best {short(one)}" + (f", {shown}" if shown else "")]
    return Table(f"{sweep.name}: {sweep.budget}", [*head, "s a trial", "trial time left"], rows)
