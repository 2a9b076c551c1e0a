"""How far a sweep is: the line after each trial, and the table of `sweep status`."""

from __future__ import annotations

import statistics
import time

from recsys.sweep import terminal
from recsys.sweep.record import SweepRecord, TrialRecord
from recsys.sweep.report import formatting, tables
from recsys.sweep.report.formatting import (
    format_duration,
    format_parameters,
    format_short_label,
    format_value,
    get_sign,
    list_ended,
    list_retried,
)

REASON = 90
"""Most letters of a reason in the progress line."""


def estimate_method_seconds(sweep: SweepRecord, now: float) -> dict[str, float | None]:
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
        own = [t.seconds for t in sweep.select_trials(method, "complete", "pruned")] or every
        if sweep.planned is None or not own:
            out[method] = None
            continue
        mean, running = statistics.fmean(own), sweep.select_trials(method, "running")
        waiting = max(0, sweep.planned - len(list_ended(sweep, method)) - len(running))
        out[method] = waiting * mean + sum(max(0.0, mean - (now - t.began)) for t in running)
    return out


def estimate_seconds_left(sweep: SweepRecord, workers: int, now: float) -> float | None:
    """About how many seconds a sweep still runs; None where that cannot be told.

    Args:
        sweep: As it stands.
        workers: Trials side by side.
        now: Seconds since 1970.
    """
    found = [
        seconds for seconds in estimate_method_seconds(sweep, now).values() if seconds is not None
    ]
    if len(found) < len(sweep.methods):
        return None
    return sum(found) / max(1, workers)


def format_progress(sweep: SweepRecord, last: TrialRecord, workers: int, now: float) -> str:
    """One line about the trial that has just ended, and how far the sweep is.

    Args:
        sweep: With that trial.
        last: The trial.
        workers: Trials side by side.
        now: Seconds since 1970.
    """
    done = sum(len(list_ended(sweep, method)) for method in sweep.methods)
    total = "" if sweep.planned is None else f" of {sweep.planned * len(sweep.methods)}"
    parts = [f"{time.strftime('%H:%M', time.localtime(now))} trial {done}{total}"]
    parts += [
        f"{last.method} #{last.number} {_describe_outcome(sweep, last)}",
        _describe_best(sweep),
    ]
    pruned = sum(trial.state == "pruned" for trial in sweep.trials)
    again = sum(len(list_retried(sweep, method)) for method in sweep.methods)
    failed = sum(trial.state == "failed" for trial in sweep.trials) - again
    counts = f"{pruned} pruned, {failed} failed"
    parts.append(f"{counts}, {again} repeated" if again else counts)
    seconds = estimate_seconds_left(sweep, workers, now)
    if seconds is not None:
        parts.append(
            f"about {format_duration(seconds)} left" if seconds > 0 else "all trials have ended"
        )
    return " | ".join(parts)


def _describe_outcome(sweep: SweepRecord, trial: TrialRecord) -> str:
    """How a trial ended."""
    found = formatting.find_last_value(trial)
    metric = format_short_label(sweep.objectives[0])
    if trial.state == "failed":
        reason = " ".join(trial.reason.split())
        cut = reason if len(reason) <= REASON else f"{reason[: REASON - 1]}\N{HORIZONTAL ELLIPSIS}"
        return f"failed: {cut}" if cut else "failed"
    if found is None:
        return trial.state
    text = format_value(sweep.objectives[0], found)
    if trial.state == "pruned":
        return f"pruned after {trial.reports[-1][0]} steps at {metric} {text}"
    return f"{trial.state} {metric} {text}"


def _describe_best(sweep: SweepRecord) -> str:
    """The best trial of all methods, with its parameters."""
    better = get_sign(sweep.objectives[0])
    found = [best for method in sweep.methods if (best := sweep.find_best(method)) is not None]
    if not found:
        return "none complete yet"
    top = max(found, key=lambda trial: better * trial.objectives[0])
    text = format_value(sweep.objectives[0], top.objectives[0])
    named = f" ({format_parameters(sweep, top)})" if top.values else ""
    return f"best {top.method} #{top.number} {text}{named}"


def print_status(sweep: SweepRecord, now: float | None = None, details: bool = False) -> None:
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
    table.print_table(
        tables.make_status_table(sweep, estimate_method_seconds(sweep, moment)), console
    )
    for method in sweep.methods:
        if (best := sweep.find_best(method)) is not None:
            text = f"best of {method}: #{best.number}, {format_parameters(sweep, best)}"
            console.print(Text(text), soft_wrap=True)
    running = [trial for trial in sweep.trials if trial.state == "running"]
    for trial in running:
        since = format_duration(max(0.0, moment - trial.began))
        parameters = format_parameters(sweep, trial)
        text = f"running for {since}: {trial.method} #{trial.number}, {parameters}"
        if trial.reports:
            step, found = trial.reports[-1]
            text += f"; step {step}: {format_value(sweep.objectives[0], found)}"
        console.print(Text(text), soft_wrap=True)
    seconds = estimate_seconds_left(sweep, len(running), moment)
    if seconds is not None and seconds > 0:
        side = f" with {len(running)} side by side" if len(running) > 1 else ""
        console.print(Text(f"about {format_duration(seconds)} left{side}"), soft_wrap=True)
    terminal.print_commands(console, sweep, details)
    for note in sweep.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
