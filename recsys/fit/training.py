"""A run that trains: its Trainer, what watches it, and the ranks that share it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from recsys.assembly.assembled import Assembly
from recsys.assembly.stored_runs import open_start
from recsys.config.compose import RunConfig
from recsys.errors import RecsysError
from recsys.fit import remarks
from recsys.fit.header import format_validation
from recsys.fit.progress_bars import ProgressBar, RemainingTime
from recsys.fit.result import FinalTest, TrainingProgress
from recsys.fit.run import RunExecutor
from recsys.metrics.names import list_cutoffs
from recsys.recommender.trainable import require_trainable
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs.validation_log import ValidationLog, read_validations
from recsys.runtime import excluded_time, rank_errors
from recsys.runtime.files import BEST, LAST, VALIDATIONS
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.runtime.progress import mark_output
from recsys.runtime.rank_errors import FirstRankWatcher
from recsys.runtime.ranks import FOLDER, get_rank
from recsys.runtime.signals import SignalHandler
from recsys.training.checkpoint import BestCheckpoint
from recsys.training.cost import CostMeter
from recsys.training.datamodule import RecDataModule
from recsys.training.item_table import ItemTableDistillation
from recsys.training.log import TrainingLog, count_trained_epochs
from recsys.training.phases import EVERY_STEP
from recsys.training.profiling import GemmRate, ProfilingCallback, StageProfiler
from recsys.training.resume import ResumeCheckpoint
from recsys.training.seeding import BatchSeeder
from recsys.training.trainer import make_trainer, train


class TrainingExecutor(RunExecutor):
    """A run of an architecture that trains, whether or not this run has it do so.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.
        meeting: Where processes of another launcher wait for it, or None.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    def __init__(
        self,
        run: RunConfig,
        folder: Path,
        made: Assembly,
        signals: SignalHandler,
        meeting: Rendezvous | None = None,
    ) -> None:
        super().__init__(run, folder, made, signals, meeting)
        self.model = require_trainable(made.recommender)
        self.data = cast(RecDataModule, made.datamodule)
        start = open_start(run)
        if start is not None:
            self.model.load_trained(start.folder / BEST, grown=run.architecture.learns_rows)
            self.model.starts_from_run = True
        self.save = ResumeCheckpoint(
            folder / LAST,
            run.checkpoint.every_minutes,
            signals,
            self._record_cost,
            run.trainer.processes,
        )
        self.best: BestCheckpoint = BestCheckpoint(
            self.weights,
            f"val/{run.evaluation.monitor}",
            run.checkpoint.pick,
            ValidationLog(folder / VALIDATIONS),
            self.save.get_total_seconds,
            self._print_validation,
        )
        self.course = RemainingTime(run.evaluation.test)
        self.bar = ProgressBar(self.course)
        self.rows = TrainingLog(run.trainer.log_every, self.save.get_total_seconds)
        self.meter = CostMeter(run.profile)
        self.profile = ProfilingCallback(self.watch, run.trainer.precision)
        self._trainer: lp.Trainer | None = None

    def _run(self) -> None:
        """Trains and tests, on the first rank beside the ranks that it launches."""
        first = get_rank() == 0
        shares = first and self.run.trainer.processes > 1
        launches = shares and self.meeting is None
        if launches:
            os.environ[FOLDER] = str(self.folder)
        elif shares and self.meeting is not None:
            self.meeting.give(self.folder)
        try:
            self._trainer = trainer = self._make_trainer()
            self.watch.end_startup()
            with self._watch_ranks(trainer, first) if shares or not first else nullcontext():
                self._finish(*self._train_and_test(trainer))
        finally:
            if launches:
                os.environ.pop(FOLDER, None)

    def _abort(self) -> None:
        """Ends the ranks that this one has launched; has those of another launcher leave."""
        if get_rank() != 0:
            return
        if self.meeting is not None and self.meeting.settled:
            rank_errors.write_rank_error(self.folder, RecsysError("the first process has ended"))
        if self._trainer is not None:
            _end_ranks(self._trainer)

    def _count_training(self) -> TrainingCounts:
        return self.meter.compute_total()

    def _summarize_training(self) -> dict[str, object]:
        still = {role: 0.0 for role, named in self.model.group_by_role().items() if named}
        return {"loss": self.rows.compute_loss(), "distance": self.rows.distance or still}

    def _get_device_peak(self) -> tuple[float | None, Sequence[GemmRate]]:
        return self.profile.peak, self.profile.gemms

    @contextmanager
    def _watch_ranks(self, trainer: lp.Trainer, first: bool) -> Iterator[None]:
        """Hears of an error on another rank."""
        if not first:
            # A rank that the first one has launched is ended by it.
            with nullcontext() if self.meeting is None else FirstRankWatcher(self.folder):
                yield
            return
        with (
            rank_errors.RankErrorWatcher(
                self.folder, self._close, lambda: _list_processes(trainer)
            ),
            rank_errors.raise_rank_error(self.folder),
        ):
            yield

    def _train_and_test(
        self, trainer: lp.Trainer
    ) -> tuple[dict[str, dict[str, float]], TrainingProgress]:
        """The closing table, and how far training came."""
        model, options = self.model, self.run.evaluation
        still = self._is_untrained()
        # Every rank must take the same way; only the file that all of them see decides.
        if options.test and not still and model.start not in self.start.floors:
            loggers, trainer.loggers = trainer.loggers, []
            self.bar.test = f"{model.start} test"
            with excluded_time.excluded_time():
                self.start.floors[model.start] = self._test(trainer)
            self.bar.test = "test"
            trainer.loggers = loggers
            if get_rank() == 0:
                self.start.write(self.folder)
        last = self.folder / LAST
        train(trainer, model, self.data, last, self.csv, self.best, self.save, self._is_untrained)
        done = self._measure_progress(trainer)
        if done.steps:
            trainer.strategy.barrier("best")
            model.load_trained(self.weights)
        if not options.test:
            shown = {0: self.best.first, self.best.step: self.best.metrics}
            return {f"step {step}": metrics for step, metrics in shown.items()}, done
        if options.beyond and options.protocol == "catalog":
            # Of this pass only: what baselines and the start recommend is not looked at.
            model.evaluator.keep = max(list_cutoffs(options))
        test = self._test(trainer)
        if still:
            self.start.floors[model.start] = test
        floors = {k: v for k, v in self.start.floors.items() if not (still and k == model.start)}
        return {**floors, self.folder.name: test}, done

    def _test(self, trainer: lp.Trainer) -> dict[str, float]:
        """Test metrics in double precision; what Lightning logs is rounded to single."""
        trainer.test(self.model, self.data, verbose=False)
        found = self.model.evaluator.metrics.compute()
        return {name: float(value) for name, value in found.items()}

    def _measure_progress(self, trainer: lp.Trainer) -> TrainingProgress:
        """How far it came by now; nothing is planned where nothing can train."""
        seconds = self.save.get_total_seconds()
        if not self.model.get_trained_parameters():
            return TrainingProgress(seconds=seconds)
        planned, epochs = self.model.count_planned_steps(), count_trained_epochs(trainer)
        return TrainingProgress(trainer.global_step, planned, epochs, seconds)

    def _is_untrained(self) -> bool:
        """Whether nothing trains, so that the run is its own start."""
        return not self.model.get_trained_parameters() or self.run.trainer.max_steps == 0

    def _print_validation(
        self, trainer: lp.Trainer, metrics: Mapping[str, float], step: int, kept: bool
    ) -> None:
        """Prints what a validation found."""
        at = f"epoch {count_trained_epochs(trainer):.3g}/{trainer.max_epochs}" if step else "start"
        if step and trainer.max_steps >= 0:
            at = f"step {step}/{trainer.max_steps}"
        best = step > 0 and kept and self.run.checkpoint.pick == "best"
        left, monitor = self.course.estimate_seconds(trainer), self.run.evaluation.monitor
        print(format_validation(at, monitor, metrics, best, left), flush=True)
        mark_output()

    def _list_remarks(self, tested: FinalTest | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        said = remarks.describe_training(self.run, read_validations(self.folder / VALIDATIONS))
        if tested is None:
            return said
        metric, start = self.run.evaluation.metric, self.model.start
        return [
            *remarks.describe_shortfalls(
                metric, tested.test, self.start.floors, start, tested.cases
            ),
            *said,
        ]

    def _make_trainer(self) -> lp.Trainer:
        """A Trainer from typed options."""
        options = self.run.trainer
        callbacks: list[Callback] = [self.profile] if self.run.profile else []
        callbacks += [self.meter, BatchSeeder(self.run.seed)]
        callbacks += [self.rows, self.best]
        if options.encoder_updates != EVERY_STEP:
            clip, size = self.run.optimizer.clip, options.batch_size
            callbacks.append(
                ItemTableDistillation(options.encoder_updates, size, clip, self.run.seed)
            )
        if options.patience is not None:
            callbacks.append(
                EarlyStopping(
                    self.best.monitor,
                    mode="max",
                    patience=options.patience,
                    check_on_train_epoch_end=False,
                )
            )
        return make_trainer(
            options,
            self.run.optimizer.clip,
            [self.bar, *callbacks, self.save],
            self._open_logs(),
            StageProfiler(self.watch) if self.run.profile else None,
        )


def _end_ranks(trainer: lp.Trainer) -> None:
    """Ends the ranks that this process launched, which may wait for it in vain.

    A rank that was told to leave by a common decision gets the time to do so.
    """
    for process in _list_processes(trainer):
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()


def _list_processes(trainer: lp.Trainer) -> Sequence[subprocess.Popen[bytes]]:
    """The other ranks that this process has launched by now."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ()
