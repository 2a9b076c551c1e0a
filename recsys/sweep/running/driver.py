"""The driver of a sweep: it asks for values, starts runs, prunes and tells; it never trains."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.trial import Trial

from recsys.errors import OUTSIDE, ConfigError, RecsysError
from recsys.runtime.files import translate_write_errors
from recsys.runtime.locks import try_lock
from recsys.sweep import record, status
from recsys.sweep.definition import SweepDefinition
from recsys.sweep.running import finals
from recsys.sweep.running.launcher_client import StartedTrial, TrialLauncher
from recsys.sweep.running.leases import TrialLeases
from recsys.sweep.running.signals import SignalRecorder
from recsys.sweep.running.slurm_launcher import SlurmLauncher
from recsys.sweep.running.storage import open_storage
from recsys.sweep.running.studies import SweepStudies
from recsys.sweep.running.trial import RunningTrial, TrialOutcome, drop_checkpoints
from recsys.sweep.space import SearchPlan

JOBS = "jobs"
"""Folder of what SLURM is given, and of what jobs print beside their trial's log."""
RECOVER = 30.0
"""Seconds between two looks for trials whose driver is gone."""
LOOK = 0.1
"""Seconds between two looks at the runs."""
STATUS = 15.0
"""Seconds between two writes of the record while trials run, for `sweep status`."""


@dataclass
class _WorkerSlot:
    """A trial that runs here."""

    method: str
    trial: Trial
    running: RunningTrial


class SweepDriver:
    """One driver; several may work on a sweep at the same time.

    Args:
        definition: What was asked for.
        plans: The plan of each method.
        say: Prints a line.
        module: What a run is.
    """

    def __init__(
        self,
        definition: SweepDefinition,
        plans: dict[str, SearchPlan],
        say: Callable[[str], None],
        module: str = "recsys.fit",
    ) -> None:
        self.definition, self.plans, self.say, self.module = definition, plans, say, module
        self.folder = definition.folder
        self._slots: list[_WorkerSlot] = []
        self._written = 0.0
        self._outside = ""

    def run(self) -> int:
        """Runs the sweep from where it stands to its end.

        Returns:
            The exit code: 0; 1 where a method has no complete trial or a closing run failed; 5
            where the disk is full or a service does not answer; 128 + signal.

        Raises:
            RecsysError: The storage, or a method's first trials, cannot be used.
        """
        try:
            with translate_write_errors(self.folder):
                return self._run()
        except StorageInternalError as error:
            raise RecsysError(
                "storage: the database does not answer any more; the same command goes on when it "
                "does."
            ) from error

    def _run(self) -> int:
        """As `run`."""
        with ExitStack() as held:
            signals = held.enter_context(SignalRecorder())
            opened = open_storage(self.folder, self.definition.storage)
            mine = held.enter_context(TrialLeases(opened))
            self.studies = SweepStudies(self.definition, self.plans, opened, mine)
            self.launcher = self._make_launcher()
            held.enter_context(self.launcher)
            self._write_record()
            self._run_trials(signals)
            if signals.received:
                name = signal.Signals(signals.received).name
                return self._shut_down(f"stopped by {name}", 128 + signals.received)
            if self._outside:
                return self._shut_down(f"error: {self._outside.rstrip('.')}", OUTSIDE)
            if others := self.studies.count_busy():
                self.say(
                    f"{others} trials still run in other drivers; the last of these closes the "
                    "sweep."
                )
                return 0
            with try_lock(self.folder / "closing.lock") as first:
                if not first:
                    self.say("another driver closes the sweep.")
                    return 0
                return finals.finish_sweep(self, signals)

    def _make_launcher(self) -> TrialLauncher | SlurmLauncher:
        """What starts runs: here, or as jobs."""
        definition = self.definition
        if definition.launcher == "slurm":
            return SlurmLauncher((self.folder / JOBS).absolute(), definition.slurm)
        one = all(plan.run.trainer.processes == 1 for plan in self.plans.values())
        return TrialLauncher(definition.prepared and one)

    def _run_trials(self, signals: SignalRecorder) -> None:
        """Keeps as many trials running as there are workers, until the budget is used."""
        over, recovered = False, -RECOVER
        while (self._slots or not over) and not signals.received and not self._outside:
            now = time.monotonic()
            if now - recovered > RECOVER:
                recovered, over = now, False
                self._recover()
            while not over and len(self._slots) < self.definition.workers:
                over = not self._start_trial()
            for slot in list(self._slots):
                outcome = self._poll_slot(slot)
                if outcome is not None:
                    self._slots.remove(slot)
                    self._handle_outcome(slot, outcome)
                    over = False
            if time.monotonic() - self._written > STATUS:
                self._write_record()
            if over and not self._slots:  # nobody else may be left for a trial that was lost since
                over = not self._recover()
            time.sleep(LOOK)

    def _recover(self) -> bool:
        """Has the trials repeated whose driver is gone; whether there were any."""
        lost = self.studies.recover()
        for method, number in lost:
            self.say(f"{method} #{number} was lost with its driver; it is looked after.")
        return bool(lost)

    def _start_trial(self) -> bool:
        """Starts a trial; False where no budget is left."""
        method = self.studies.select_next_method()
        if method is None:
            return False
        asked = self.studies.ask(method)
        if asked is None:
            return self.studies.select_next_method() is not None
        trial, index = asked
        plan = self.plans[method]
        values = plan.suggest(trial)
        place = self.studies.get_trial_folder(method, index)
        running = RunningTrial(self.definition, plan, values, place, trial.number, self.start_run)
        self._slots.append(_WorkerSlot(method, trial, running))
        return True

    def start_run(self, plan: SearchPlan, words: Sequence[str], log: Path) -> StartedTrial:
        """Starts a run: a fork where that is possible, else a command, or a job."""
        if isinstance(self.launcher, SlurmLauncher):
            return self.launcher.start(words, log, self.module, plan.run.trainer)
        threads, more = self.compute_threads(), list[str]()
        if threads is not None and plan.run.trainer.threads is None and "resume=" not in words[0]:
            more.append(f"trainer.threads={threads}")
        fork = self.launcher.prepare and plan.run.trainer.processes == 1
        return self.launcher.start([*words, *more], log, {}, fork, self.module)

    def compute_threads(self) -> int | None:
        """CPU threads of a run where several share the machine."""
        if self.definition.workers == 1:
            return None
        return max(1, len(os.sched_getaffinity(0)) // self.definition.workers)

    def _poll_slot(self, slot: _WorkerSlot) -> TrialOutcome | None:
        """Looks after a trial, and prunes it where its study says so."""
        outcome = slot.running.poll()
        news = slot.running.take_new_reports() if len(self.definition.objectives) == 1 else []
        prunes = self.definition.pruner.name != "none" and outcome is None
        for step, value in news:
            if not self.studies.report(slot.trial, step, value):
                slot.running.stop()  # another driver has it now
                break
            if prunes and slot.trial.should_prune():
                after = "seeds" if self.definition.seeds > 1 else "epochs"
                slot.running.prune(
                    f"{self.definition.pruner.name}: after {step} {after} at {value:.4g}."
                )
                break
        return outcome

    def _handle_outcome(self, slot: _WorkerSlot, outcome: TrialOutcome) -> None:
        """Tells how a trial ended; what is wrong outside of it would end the next ones, too."""
        if not outcome.outside:
            self._record_outcome(slot, outcome)
            return
        self._outside = outcome.reason
        self.studies.tell_stopped(slot.method, slot.trial, slot.running, outcome)

    def _record_outcome(self, slot: _WorkerSlot, outcome: TrialOutcome) -> None:
        """Tells how a trial ended, and says so."""
        repeated = self.studies.tell(slot.method, slot.trial, slot.running, outcome)
        sweep = self._write_record()
        (last,) = [t for t in sweep.select_trials(slot.method) if t.number == slot.trial.number]
        self._drop_old_checkpoints(sweep, slot.method)
        self.say(status.format_progress(sweep, last, self.definition.workers, time.time()))
        if outcome.warning:
            self.say(f"warning: {slot.method} #{last.number}: {outcome.warning}")
        if outcome.again and not repeated:
            self._close_log(slot, outcome)
        if why := self.studies.find_common_mistake(slot.method):
            for other in self._slots:
                other.running.stop()
            raise ConfigError(
                f"every trial of {slot.method} is refused: {why} (log: {slot.running.place})"
            )

    def _close_log(self, slot: _WorkerSlot, outcome: TrialOutcome) -> None:
        """Sees to the logs of runs that were killed before they could close them."""
        from recsys.tracking.wandb_log import choose_wandb_mode

        if choose_wandb_mode(self.plans[slot.method].run.tracking.wandb) == "off":
            return
        from recsys.sweep.wandb import hooks

        for run in slot.running.list_runs():
            if why := hooks.close_trial(run, outcome.state, outcome.reason):
                self.say(f"W&B: {why}")

    def _drop_old_checkpoints(self, sweep: record.SweepRecord, method: str) -> None:
        """Keeps the parameters of a method's best trial only."""
        best, due = sweep.find_best(method), self.studies.list_due(method)
        for trial in sweep.select_trials(method, "complete", "pruned", "failed"):
            # A repetition goes on from the state that the lost attempt saved.
            if trial.index not in due and (best is None or trial.index != best.index):
                drop_checkpoints([self.folder / run for run in trial.runs])

    def _write_record(self) -> record.SweepRecord:
        """Writes the record."""
        found = self.studies.make_record()
        with suppress(ConfigError):  # there is none yet, or it is damaged: it is written anew
            found = finals.carry_over_finals(found, record.read_record(self.folder))
        record.write_record(found)
        self._written = time.monotonic()
        return found

    def _shut_down(self, why: str, code: int) -> int:
        """Lets the runs save their state; the same command goes on with them."""
        self.say("stopping: the runs save their state.")
        for slot in self._slots:
            slot.running.stop()
        while self._slots:
            for slot in list(self._slots):
                outcome = slot.running.poll()
                if outcome is None:
                    continue
                self._slots.remove(slot)
                if outcome.state == "failed" and outcome.again:
                    self.studies.tell_stopped(slot.method, slot.trial, slot.running, outcome)
                else:
                    self._record_outcome(slot, outcome)
            time.sleep(LOOK)
        self._write_record()
        print(f"{why}; the same command goes on.", file=sys.stderr)
        return code
