"""How far a sweep is: the line after each trial, and the table of `sweep status`."""

from __future__ import annotations

import statistics
import time

from recsys.sweep import terminal
from recsys.sweep.record import Sweep, Trial
from recsys.sweep.report import formatting, tables
from recsys.sweep.report.formatting import duration, ended, lost, parameters, short, sign, value

REASON = 90
"""Most letters of a reason in the progress line."""


def left_by_method(sweep: Sweep, now: float) -> dict[str, float | None]:
    """Seconds of trials that each method has before it, as if run one after the other.

    Trials take the mean time of those of their method that ended with a value, or, before there
    is one, of all methods. None where the budget is not told in trials, or nothing has ended.

    Args:
        sweep: As it stands.
        now: Seconds since 1970.
    """
    out: dict[str, float | None] = {}
    every = [t.seconds for t in sweep.trials if t.state in ("complete", "pruned")]
    for method in sweep.methods:
        own = [t.seconds for t in sweep.of(method, "complete", "pruned")] or every
        if sweep.planned is None or not own:
            out[method] = None
            continue
        mean, running = statistics.fmean(own), sweep.of(method, "running")
        waiting = max(0, sweep.planned - len(ended(sweep, method)) - len(running))
        out[method] = waiting * mean + sum(max(0.0, mean - (now - t.began)) for t in running)
    return out


def time_left(sweep: Sweep, workers: int, now: float) -> float | None:
    """About how many seconds a sweep still runs; None where that cannot be told.

    Args:
        sweep: As it stands.
        workers: Trials side by side.
        now: Seconds since 1970.
    """
    found = [seconds for seconds in left_by_method(sweep, now).values() if seconds is not None]
    if len(found) < len(sweep.methods):
        return None
    return sum(found) / max(1, workers)


def line(sweep: Sweep, last: Trial, workers: int, now: float) -> str:
    """One line about the trial that has just ended, and how far the sweep is.

    Args:
        sweep: With that trial.
        last: The trial.
        workers: Trials side by side.
        now: Seconds since 1970.
    """
    done = sum(len(ended(sweep, method)) for method in sweep.methods)
    total = "" if sweep.planned is None else f" of {sweep.planned * len(sweep.methods)}"
    parts = [f"{time.strftime('%H:%M', time.localtime(now))} trial {done}{total}"]
    parts += [f"{last.method} #{last.number} {_outcome(sweep, last)}", _best(sweep)]
    pruned = sum(trial.state == "pruned" for trial in sweep.trials)
    again = sum(len(lost(sweep, method)) for method in sweep.methods)
    failed = sum(trial.state == "failed" for trial in sweep.trials) - again
    counts = f"{pruned} pruned, {failed} failed"
    parts.append(f"{counts}, {again} repeated" if again else counts)
    seconds = time_left(sweep, workers, now)
    if seconds is not None:
        parts.append(f"about {duration(seconds)} left" if seconds > 0 else "all trials have ended")
    return " | ".join(parts)


def _outcome(sweep: Sweep, trial: Trial) -> str:
    """How a trial ended."""
    found = formatting.last(trial)
    metric = short(sweep.objectives[0])
    if trial.state == "failed":
        reason = " ".join(trial.reason.split())
        cut = reason if len(reason) <= REASON else f"{reason[: REASON - 1]}\N{HORIZONTAL ELLIPSIS}"
        return f"failed: {cut}" if cut else "failed"
    if found is None:
        return trial.state
    text = value(sweep.objectives[0], found)
    if trial.state == "pruned":
        return f"pruned after {trial.reports[-1][0]} steps at {metric} {text}"
    return f"{trial.state} {metric} {text}"


def _best(sweep: Sweep) -> str:
    """The best trial of all methods, with its parameters."""
    better = sign(sweep.objectives[0])
    found = [best for method in sweep.methods if (best := sweep.best(method)) is not None]
    if not found:
        return "none complete yet"
    top = max(found, key=lambda trial: better * trial.objectives[0])
    text = value(sweep.objectives[0], top.objectives[0])
    named = f" ({parameters(sweep, top)})" if top.values else ""
    return f"best {top.method} #{top.number} {text}{named}"


def show(sweep: Sweep, now: float | None = None, details: bool = False) -> None:
    """Prints how far each method is, and when all may be done.

    Args:
        sweep: As it stands.
        details: Print the command of each method's best trial, not only of the best of all.
        now: Seconds since 1970; by default the present.
    """
    from rich.console import Console
    from rich.text import Text

    from recsys.compare.report import table

    moment = time.time() if now is None else now
    console = Console()
    table.rich(tables.status(sweep, left_by_method(sweep, moment)), console)
    for method in sweep.methods:
        if (best := sweep.best(method)) is not None:
            text = f"best of {method}: #{best.number}, {parameters(sweep, best)}"
            console.print(Text(text), soft_wrap=True)
    running = [trial for trial in sweep.trials if trial.state == "running"]
    for trial in running:
        since = duration(max(0.0, moment - trial.began))
        text = f"running for {since}: {trial.method} #{trial.number}, {parameters(sweep, trial)}"
        if trial.reports:
            step, found = trial.reports[-1]
            text += f"; step {step}: {value(sweep.objectives[0], found)}"
        console.print(Text(text), soft_wrap=True)
    seconds = time_left(sweep, len(running), moment)
    if seconds is not None and seconds > 0:
        side = f" with {len(running)} side by side" if len(running) > 1 else ""
        console.print(Text(f"about {duration(seconds)} left{side}"), soft_wrap=True)
    terminal.commands(console, sweep, details)
    for note in sweep.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
