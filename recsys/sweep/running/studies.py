"""One Optuna study a method: asking, telling, what is used of the budget, and the record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.runs.validation_log import ValidationRecord, read_validations
from recsys.runtime.files import LAST, VALIDATIONS
from recsys.sweep import record, samplers
from recsys.sweep.definition import MethodBudget, SweepDefinition, flatten_run
from recsys.sweep.record import State
from recsys.sweep.running.leases import (
    BLAMELESS,
    INDEX,
    REASON,
    RETRY_OF,
    TrialLeases,
    get_trial_index,
)
from recsys.sweep.running.storage import StudyStorage
from recsys.sweep.running.trial import RunningTrial, TrialOutcome, find_run
from recsys.sweep.space import SearchPlan, make_axes, make_objectives

DONE = "outcome"
"""User attribute with what is known of a trial that has ended."""
BEGAN = "began"
"""User attribute with the seconds since 1970 at which a trial began."""
STOPPED = "stopped by the user"
RUNNING = (TrialState.RUNNING,)
WAITING = (TrialState.WAITING,)

STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class SweepStudies:
    """The studies of a sweep.

    Args:
        definition: What was asked for.
        plans: The plan of each method.
        opened: Where the trials lie.
        held: This driver's hold on its trials.
    """

    def __init__(
        self,
        definition: SweepDefinition,
        plans: Mapping[str, SearchPlan],
        opened: StudyStorage,
        held: TrialLeases,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.definition, self.plans = definition, plans
        self.folder, self._held = definition.folder, held
        self._axes, self._objectives = (
            make_axes(definition, plans),
            make_objectives(definition, plans),
        )
        self._all = {
            method: optuna.create_study(
                study_name=f"{self.folder.name}/{method}",
                storage=opened.storage,
                directions=[objective.direction for objective in definition.objectives],
                sampler=samplers.make_sampler(definition, plan, get_trial_index),
                pruner=samplers.make_pruner(definition, plan),
                load_if_exists=True,
            )
            for method, plan in plans.items()
        }

    def get_trial_folder(self, method: str, index: int) -> Path:
        """The folder of a trial's runs, by its place in the design."""
        return self.folder / "trials" / method / f"{index:04d}"

    def select_next_method(self) -> str | None:
        """The method whose budget is used least, or one with a trial to repeat; None at the end."""
        for method, study in self._all.items():
            if study.get_trials(deepcopy=False, states=WAITING):
                return method
        used = {method: self.compute_used_share(method) for method in self._all}
        left = {method: share for method, share in used.items() if share < 1}
        return min(left, key=lambda method: left[method], default=None)

    def count_planned(self, method: str) -> int | None:
        """Trials of a method, where the budget says that."""
        plan, budget = self.plans[method], self.definition.budget
        if not plan.space:
            return 1
        if self.definition.sampler.name == "grid":
            size = len(plan.list_combinations())
            return size if budget.trials is None else min(size, budget.trials)
        return budget.trials

    def compute_used_share(self, method: str) -> float:
        """The share of a method's budget that its trials have used; running ones count.

        Hours and epochs of a trial that runs are taken to be the mean of the others'. A repetition
        goes on where the lost attempt was and has its epochs, too. One that ended before its first
        epoch counts as one, or a budget of epochs would never end where all of them fail.
        """
        trials = [t for t in self._all[method].get_trials(deepcopy=False) if has_begun(t)]
        own = [t for t in trials if RETRY_OF not in t.user_attrs]
        planned = self.count_planned(method)
        shares = [0.0] if planned is None else [len(own) / planned]
        budget: MethodBudget = self.definition.budget
        for limit, name in ((budget.hours, "seconds"), (budget.epochs, "epochs")):
            if limit is None:
                continue
            again = {t.user_attrs.get(RETRY_OF) for t in trials}
            mine = [
                t
                for t in trials
                # Of a trial that was lost with its driver, nobody knows the seconds.
                if t.number not in again or (name == "seconds" and DONE in t.user_attrs)
            ]
            known = [float(t.user_attrs[DONE][name]) or 1.0 for t in mine if DONE in t.user_attrs]
            mean = sum(known) / len(known) if known else 0.0
            spent = sum(known) + mean * (len(mine) - len(known))
            shares.append(spent / (3600 * limit if name == "seconds" else limit))
        return max(shares)

    def ask(self, method: str) -> tuple[Trial, int] | None:
        """A new trial and its place, or None where other drivers have used the budget."""
        study = self._all[method]

        def has_room() -> bool:
            return (
                bool(study.get_trials(deepcopy=False, states=WAITING))
                or self.compute_used_share(method) < 1
            )

        trial = self._held.ask(study, has_room)
        if trial is None:
            return None
        trial.set_user_attr(BEGAN, time.time())
        return trial, int(trial.user_attrs[INDEX])

    def tell(self, method: str, trial: Trial, running: RunningTrial, outcome: TrialOutcome) -> bool:
        """Notes how a trial ended.

        Returns:
            Whether it will be repeated.
        """
        runs = [str(run.relative_to(self.folder)) for run in running.list_runs()]
        self._record_outcome(trial, outcome, runs, running.reports)
        study = self._all[method]
        if outcome.state == "failed":
            return self._held.fail(study, trial.number, outcome.reason, outcome.again)
        values = list(outcome.objectives) if outcome.state == "complete" else None
        self._held.tell(study, trial.number, values)
        return False

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Tells a value on the way; False where another driver took this one for dead."""
        try:
            trial.report(value, step)
        except UpdateFinishedTrialError:
            return False
        return True

    def list_due(self, method: str) -> set[int]:
        """The places of a method's trials that run, or wait to be repeated."""
        study = self._all[method]
        found = study.get_trials(deepcopy=False, states=RUNNING + WAITING)
        return {get_trial_index(study, trial) for trial in found}

    def tell_stopped(
        self, method: str, trial: Trial, running: RunningTrial, outcome: TrialOutcome
    ) -> None:
        """Notes that a trial was stopped by the user, or by what it is not to blame for.

        The next driver goes on with it.
        """
        reason = outcome.reason if outcome.outside else STOPPED
        runs = [str(run.relative_to(self.folder)) for run in running.list_runs()]
        self._record_outcome(trial, replace(outcome, reason=reason), runs, running.reports)
        self._held.fail(self._all[method], trial.number, reason, retry=True, blameless=True)

    def recover(self) -> list[tuple[str, int]]:
        """The method and number of each trial whose driver is gone; all are repeated."""
        lost = [
            (method, number)
            for method, study in self._all.items()
            for number in self._held.recover(study, partial(self._measure_progress, method))
        ]
        self._held.delete_dead_locks()
        return lost

    def _measure_progress(self, method: str, index: int) -> float:
        """How far the trial in a place has come: when it last saved its state, else its step."""
        place, found = self.get_trial_folder(method, index), [0.0]
        for path in place.rglob(LAST.name):
            with suppress(FileNotFoundError):  # its last process is just done with it
                found.append(path.stat().st_mtime)
        for path in place.rglob(VALIDATIONS):
            found += [float(line.step) for line in read_validations(path)]
        return max(found)

    def _record_outcome(
        self, trial: Trial, outcome: TrialOutcome, runs: list[str], reports: list[ValidationRecord]
    ) -> None:
        done = {
            "reason": outcome.reason,
            "mistake": outcome.mistake,
            "warning": outcome.warning,
            "figures": dict(outcome.figures or {}),
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            "runs": runs,
            "reports": [(report.step, report.value) for report in reports],
        }
        with suppress(UpdateFinishedTrialError):  # by a driver that took this one for dead
            trial.set_user_attr(DONE, done)

    def find_common_mistake(self, method: str) -> str:
        """The sentence with which a method's first trials were all refused, or nothing."""
        trials = self._all[method].get_trials(deepcopy=False)
        found = [
            t for t in trials if DONE in t.user_attrs and not t.user_attrs.get(BLAMELESS, False)
        ]
        refused = [t.user_attrs[DONE]["reason"] for t in found if t.user_attrs[DONE]["mistake"]]
        return refused[0] if len(refused) == len(found) >= 2 and len(set(refused)) == 1 else ""

    def count_busy(self) -> int:
        """Trials that run or wait, those of other drivers included."""
        both = RUNNING + WAITING
        return sum(
            len(study.get_trials(deepcopy=False, states=both)) for study in self._all.values()
        )

    def make_record(self) -> record.SweepRecord:
        """What has been found so far."""
        trials = [
            self._make_trial_record(method, study, trial)
            for method, study in self._all.items()
            for trial in study.get_trials(deepcopy=False)
            if has_begun(trial)
        ]
        methods = tuple(self.plans)
        planned = [self.count_planned(method) for method in methods]
        found = record.SweepRecord(
            name=self.definition.name,
            folder=self.folder,
            methods=methods,
            axes=self._axes,
            objectives=self._objectives,
            budget=self.definition.budget.describe(),
            planned=max(n for n in planned if n is not None) if None not in planned else None,
            trials=record.sort_trials(trials, methods),
            notes=(*describe_left_out(self.plans), *_describe_warnings(trials)),
            common=_select_shared_values(self.plans),
        )
        commands = {
            method: self.plans[method].format_command(best.values, self.definition.seed)
            for method in methods
            if (best := found.find_best(method)) is not None
        }
        return replace(found, commands=commands)

    def _make_trial_record(
        self, method: str, study: Study, trial: FrozenTrial
    ) -> record.TrialRecord:
        """A trial as the record has it."""
        done: dict[str, Any] = trial.user_attrs.get(DONE, {})
        index = get_trial_index(study, trial)
        names = {called: name for name, called in self.plans[method].get_study_names().items()}
        reports = done.get("reports")
        runs = tuple(done.get("runs", ()))
        began = float(trial.user_attrs.get(BEGAN, 0.0))
        if reports is None:
            place = self.get_trial_folder(method, index)
            run = find_run(place) or find_run(place / f"seed-{self.definition.seed}")
            lines = read_validations(run / VALIDATIONS) if run is not None else []
            reports = [(line.step, line.value) for line in lines]
            runs = (str(run.relative_to(self.folder)),) if run is not None else ()
        return record.TrialRecord(
            method=method,
            number=trial.number,
            index=index,
            state=STATES[trial.state],
            reason=str(done.get("reason") or trial.user_attrs.get(REASON, "")),
            values={names.get(name, name): value for name, value in trial.params.items()},
            objectives=tuple(trial.values) if trial.values is not None else (),
            reports=tuple((int(step), float(value)) for step, value in reports),
            figures=done.get("figures", {}),
            seconds=float(done.get("seconds", 0.0)),
            began=began,
            epochs=float(done.get("epochs", 0.0)),
            runs=runs,
            retry_of=trial.user_attrs.get(RETRY_OF),
            warning=str(done.get("warning", "")),
        )


def describe_left_out(plans: Mapping[str, SearchPlan]) -> list[str]:
    """What each method does not search, a sentence for each reason."""
    out = []
    for method, plan in plans.items():
        for reason in dict.fromkeys(plan.dropped.values()):
            names = [name for name, why in plan.dropped.items() if why == reason]
            out.append(f"{method}{record.UNSEARCHED}{', '.join(names)}: {reason}.")
    return out


def _describe_warnings(trials: list[record.TrialRecord]) -> list[str]:
    """A sentence on the trials that have a result and a warning, too."""
    found = [f"{trial.method} #{trial.number}" for trial in trials if trial.warning]
    if not found:
        return []
    first = next(trial.warning for trial in trials if trial.warning)
    have = "trials have" if len(found) > 1 else "trial has"
    return [f"{len(found)} complete {have} a warning ({', '.join(found)}): {first}"]


def has_begun(trial: FrozenTrial) -> bool:
    """Whether a trial has begun."""
    return trial.state != TrialState.WAITING


def _select_shared_values(plans: Mapping[str, SearchPlan]) -> dict[str, record.Value]:
    """What all methods' configurations share, and none searches."""
    searched = {d.get_key(plan.method) for plan in plans.values() for d in plan.space}
    first, *others = [flatten_run(plan.run) for plan in plans.values()]
    return {
        key: value
        for key, value in first.items()
        if key not in searched
        and not isinstance(value, list)
        and all(other.get(key) == value for other in others)
    }
