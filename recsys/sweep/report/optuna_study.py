"""A method's trials as an Optuna study in memory, so that pictures need no storage."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from recsys.sweep.record import SearchAxis, SweepObjective, SweepRecord, TrialRecord
from recsys.sweep.report.formatting import format_parameter, scale_value

if TYPE_CHECKING:
    import optuna


@contextlib.contextmanager
def silence_optuna() -> Iterator[None]:
    """Keeps Optuna from announcing each study, and from warning of what captions say."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def make_study(sweep: SweepRecord, method: str, *, first_only: bool = True) -> optuna.Study:
    """The study of a method, with the trials' own numbers.

    A value that an axis does not have in a trial is absent from that trial, as Optuna keeps
    conditional parameters. Choices are texts; objectives are as pictures show them, in percent
    where they are shares, since Optuna turns its colours round where it is given a target.

    Args:
        sweep: What was found.
        method: Whose trials.
        first_only: Leave the second objective out, where there is one.
    """
    import optuna

    sweep = sweep.select_method(method)
    objectives = sweep.objectives[:1] if first_only else sweep.objectives
    with silence_optuna():
        made = optuna.create_study(
            study_name=f"{sweep.name}: {method}", directions=[o.direction for o in objectives]
        )
        ranges = {
            axis.name: _make_distribution(axis, sweep.select_trials(method)) for axis in sweep.axes
        }
        for trial in sweep.select_trials(method):
            made.add_trial(_make_frozen_trial(sweep, trial, ranges, objectives))
    return made


def list_varied_axes(sweep: SweepRecord, method: str) -> list[SearchAxis]:
    """The axes that a method's complete trials vary, with the same axes in all of them first.

    They and the trials of `make_study` have the names of the keys that are set in the method.
    """
    sweep = sweep.select_method(method)
    complete = sweep.select_trials(method, "complete")

    def is_varied(axis: SearchAxis) -> bool:
        return (
            len({format_parameter(t.values[axis.name]) for t in complete if axis.name in t.values})
            > 1
        )

    found = [axis for axis in sweep.axes if is_varied(axis)]
    return sorted(found, key=lambda axis: not all(axis.name in t.values for t in complete))


def _make_distribution(
    axis: SearchAxis, trials: list[TrialRecord]
) -> optuna.distributions.BaseDistribution:
    """The searched range of an axis, widened to what an earlier, wider search had found."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    values = [trial.values[axis.name] for trial in trials if axis.name in trial.values]
    if axis.kind == "choice" or axis.low is None or axis.high is None:
        texts = [format_parameter(each) for each in (*axis.choices, *values)]
        return CategoricalDistribution(tuple(dict.fromkeys(texts)))
    numbers = [float(each) for each in values if isinstance(each, int | float)]
    low, high = min([axis.low, *numbers]), max([axis.high, *numbers])
    if axis.kind == "int":
        return IntDistribution(int(low), int(high), log=axis.log)
    return FloatDistribution(low, high, log=axis.log)


def _make_frozen_trial(
    sweep: SweepRecord,
    trial: TrialRecord,
    ranges: dict[str, optuna.distributions.BaseDistribution],
    objectives: tuple[SweepObjective, ...],
) -> optuna.trial.FrozenTrial:
    """One trial as Optuna has it."""
    import optuna

    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    choices = {axis.name for axis in sweep.axes if axis.kind == "choice"}
    params: dict[str, Any] = {
        name: format_parameter(each) if name in choices else each
        for name, each in trial.values.items()
        if name in ranges
    }
    attributes: dict[str, Any] = {"trial": f"{trial.method} #{trial.number}"}
    attributes |= {"reason": trial.reason} if trial.reason else {}
    # A trial has more objectives than are asked for where the second one is left out.
    values = [
        scale_value(one, found) for one, found in zip(objectives, trial.objectives, strict=False)
    ]
    reports = {step: scale_value(objectives[0], found) for step, found in trial.reports}
    made = optuna.trial.create_trial(
        state=states[trial.state],
        values=values if trial.state == "complete" else None,
        params=params,
        distributions={name: ranges[name] for name in params},
        user_attrs={**attributes, **trial.figures},
        intermediate_values=reports if len(objectives) == 1 else {},
    )
    made.datetime_start = datetime.fromtimestamp(trial.began)
    if trial.state != "running":
        made.datetime_complete = made.datetime_start + timedelta(seconds=trial.seconds)
    return made
