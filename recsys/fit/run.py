"""One run in its folder: floors, training, test and result."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from recsys.assembly import build, protocols
from recsys.assembly.build import Assembly
from recsys.config import inactive
from recsys.config.compose import RunConfig, get_choice_name, make_node
from recsys.errors import ConfigError, DataError
from recsys.evaluation.evaluator import list_cutoffs
from recsys.fit import remarks
from recsys.fit import result as closing
from recsys.fit.progress_bars import ProgressBar, RemainingTime, describe_run, format_validation
from recsys.runs import display, rank_cost, results
from recsys.runs.failures import find_failure_state, raise_out_of_memory
from recsys.runs.folder import ENDED, LAST, compute_config_checksum
from recsys.runs.rank_cost import RankCost
from recsys.runs.state import RunState
from recsys.runs.validation_log import FILE, ValidationLog, read_validations
from recsys.runtime import excluded_time, rank_errors
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.hardware import NAMES
from recsys.runtime.memory import MemoryMonitor
from recsys.runtime.progress import ProgressTask, mark_output, track
from recsys.runtime.ranks import FOLDER, get_rank
from recsys.runtime.signals import SignalHandler
from recsys.runtime.stopwatch import Stopwatch
from recsys.tracking import csv_log, tensorboard
from recsys.tracking import wandb_log as logs
from recsys.training import profiling
from recsys.training.checkpoint import BestCheckpoint
from recsys.training.cost import CostMeter, TrainingCounts
from recsys.training.item_table import EVERY_STEP, ItemTableDistillation
from recsys.training.log import TrainingLog
from recsys.training.profiling import ProfilingCallback, StageProfiler
from recsys.training.resume import AtomicCheckpointIO, ResumeCheckpoint
from recsys.training.seeding import BatchSeeder
from recsys.types import Batch


class RunExecutor:
    """One run in its folder: on every rank, and again after every stop.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    def __init__(
        self, run: RunConfig, folder: Path, made: Assembly, signals: SignalHandler
    ) -> None:
        self.run, self.folder, self.made, self.signals = run, folder, made, signals
        self.save = ResumeCheckpoint(
            folder / LAST, run.checkpoint.every_minutes, signals, self._record_cost
        )
        self.best = BestCheckpoint(
            folder / "checkpoints" / "best.safetensors",
            f"val/{run.evaluation.monitor}",
            run.checkpoint.pick,
            ValidationLog(folder / FILE),
            self.save.get_total_seconds,
            self._print_validation,
        )
        self.course = RemainingTime(run.evaluation.test)
        self.bar = ProgressBar(self.course)
        self.rows = TrainingLog(run.trainer.log_every, self.save.get_total_seconds)
        self.memory = MemoryMonitor()
        start = RunState.read(folder)
        if start is not None and start.fingerprint != made.fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            start = RunState(
                made.fingerprint, wandb=secrets.token_hex(4), config=compute_config_checksum(folder)
            )
        elif get_rank() == 0:
            start.resumes += 1
        self.start = start
        # Each rank goes on from what it has cost itself.
        own = None if get_rank() == 0 else rank_cost.read(folder, get_rank()) or RankCost()
        self.own = own or RankCost.from_measurements(start.spent, start.excluded, start.peak_mb)
        self.startup = Elapsed()
        self.watch = Stopwatch(run.profile, start.stages)
        self.meter, self.profile = (
            CostMeter(run.profile),
            ProfilingCallback(self.watch, run.trainer.precision),
        )
        self.clock, self.excluded = excluded_time.read_clocks(), excluded_time.get_excluded_total()
        self.csv = csv_log.CsvLog(folder / "log" / "metrics.csv")
        self.wandb: logs.WandbLog | None = None

    def execute(self, started: Elapsed, excluded: Elapsed, startup: Elapsed) -> Path:
        """Floors, training, test and result.

        Args:
            started: The clocks when the command began.
            excluded: Time of the process excluded from its methods' cost by then.
            startup: What passed from there until a run could be made, imports above all.

        Raises:
            RecsysError: The data cannot be used, the training diverged, or memory did not suffice.
            Leave: A signal ended it.
        """
        first = get_rank() == 0
        self.clock, self.excluded = (
            started.subtract(self.own.spent),
            excluded.subtract(self.own.excluded),
        )
        self.startup = startup
        self.watch.begin(started.seconds)
        many = self.run.trainer.devices > 1
        trainer = None
        try:
            with self.memory, raise_out_of_memory():
                if first:
                    (self.folder / ENDED).unlink(missing_ok=True)  # of an attempt before
                    rank_errors.clear_rank_error(self.folder)
                    print(
                        f"run: {self.folder}",
                        *self.made.split.notes,
                        *inactive.find_inactive_settings(self.run),
                        *describe_run(self.run, self.made),
                        sep="\n",
                        flush=True,
                    )
                    self._evaluate_baselines()
                    if many:
                        os.environ[FOLDER] = str(self.folder)
                trainer = self._make_trainer()
                self.watch.end_startup()
                with self._watch_ranks(trainer) if first and many else nullcontext():
                    self._finish(*self._train_and_test(trainer))
        except BaseException as error:
            with suppress(DataError):  # a full disk has been told already
                self._record_cost()
            self._close(error)
            if trainer is not None and first:
                _end_ranks(trainer)
            raise
        finally:
            if first and many:
                os.environ.pop(FOLDER, None)
        return self.folder

    @contextmanager
    def _watch_ranks(self, trainer: lp.Trainer) -> Iterator[None]:
        """Hears of an error on another rank; for the first one."""
        with (
            rank_errors.RankErrorWatcher(
                self.folder, self._close, lambda: _list_processes(trainer)
            ),
            rank_errors.raise_rank_error(self.folder),
        ):
            yield

    def _close(self, error: BaseException) -> None:
        """Closes the run at Weights & Biases after what ended it."""
        if self.wandb is not None:
            self.wandb.close(1, find_failure_state(error, self.folder))

    def _evaluate_baselines(self) -> None:
        """Makes what is still missing of the test metrics of the baselines, over the same cases."""
        self.start.write(self.folder)
        wanted = self.run.architecture.trains and self.run.evaluation.test
        for name in protocols.list_baselines(self.run.evaluation) if wanted else ():
            if name not in self.start.floors:
                with excluded_time.excluded_time():
                    batches = self.made.datamodule.test_dataloader()
                    model = build.make_baseline(name, self.made.parts)
                    with track(f"test of {name}", len(batches), "batches") as task:
                        self.start.floors[name] = model.evaluate(_track_batches(batches, task))
                self.start.write(self.folder)
        if told := protocols.describe_rarity_bias(self.start.floors, self.run.evaluation.monitor):
            print(told)

    def _record_cost(self) -> None:
        """Notes what the run has cost so far, over all stops; each rank for itself."""
        self.memory.sample()
        spent, excluded = (
            excluded_time.read_clocks().subtract(self.clock),
            excluded_time.get_excluded_total().subtract(self.excluded),
        )
        peak = max(self.own.peak_mb, self.memory.peak)
        if get_rank() != 0:
            rank_cost.write(
                self.folder, get_rank(), RankCost.from_measurements(spent, excluded, peak)
            )
            return
        self.start.spent, self.start.excluded, self.start.peak_mb = spent, excluded, peak
        if self.run.profile:
            self.start.stages = self.watch.get_seconds()
        self.start.write(self.folder)

    def _train_and_test(
        self, trainer: lp.Trainer
    ) -> tuple[dict[str, dict[str, float]], closing.TrainingProgress]:
        """The closing table, and how far training came."""
        model = self.made.recommender
        options, trains = self.run.evaluation, self.run.architecture.trains
        still = self._is_untrained()
        # Every rank must take the same way; only the file that all of them see decides.
        if trains and options.test and not still and model.start not in self.start.floors:
            loggers, trainer.loggers = trainer.loggers, []
            self.bar.test = f"{model.start} test"
            with excluded_time.excluded_time():
                self.start.floors[model.start] = _test(trainer, self.made)
            self.bar.test = "test"
            trainer.loggers = loggers
            if get_rank() == 0:
                self.start.write(self.folder)
        if trains:
            self._train(trainer)
        elif not options.test:
            self._validate(trainer, 0)
        done = closing.TrainingProgress.from_assembly(
            self.made, self.save.get_total_seconds() if trains else 0.0
        )
        if trains and done.steps:
            trainer.strategy.barrier("best")
            model.load_trained(self.best.path)
        if not options.test:
            shown = {0: self.best.first, self.best.step: self.best.metrics}
            return {f"step {step}": metrics for step, metrics in shown.items()}, done
        if options.beyond and options.protocol == "catalog":
            # Of this pass only: what floors and the untrained encoder recommend is not looked at.
            model.evaluator.keep = max(list_cutoffs(options))
        test = _test(trainer, self.made)
        if trains and still:
            self.start.floors[model.start] = test
        floors = {k: v for k, v in self.start.floors.items() if not (still and k == model.start)}
        return {**floors, self.folder.name: test}, done

    def _is_untrained(self) -> bool:
        """Whether nothing trains, so that the run is its own start."""
        return not self.made.recommender.get_trained_parameters() or self.run.trainer.max_steps == 0

    def _train(self, trainer: lp.Trainer) -> None:
        """Trains, or goes on, with a validation before the first and after the last step."""
        last = self.folder / LAST
        resumed = last.is_file()
        if not resumed:
            self.csv.rewind(-1)  # of an attempt that left no checkpoint
            if get_rank() == 0:
                self.best.lines.rewind(-1)
            self._validate(trainer, 0)
        model = self.made.recommender
        if self._is_untrained():
            return
        checkpoint = str(last) if resumed else None
        trainer.fit(model, self.made.datamodule, ckpt_path=checkpoint, weights_only=True)
        if self.best.seen != trainer.global_step:  # max_steps ended it within an epoch
            self._validate(trainer, trainer.global_step)
            # A stop from here on must not validate and log that again.
            self.save.write(trainer)

    def _print_validation(
        self, trainer: lp.Trainer, metrics: Mapping[str, float], step: int, kept: bool
    ) -> None:
        """Prints what a validation found."""
        best, left = (
            kept and self.run.checkpoint.pick == "best",
            self.course.estimate_seconds(trainer),
        )
        monitor = self.run.evaluation.monitor
        print(format_validation(trainer, monitor, metrics, step, best, left), flush=True)
        mark_output()

    def _validate(self, trainer: lp.Trainer, step: int) -> None:
        """A validation outside of the training loop."""
        trainer.validate(self.made.recommender, self.made.datamodule, verbose=False)
        self.best.update(trainer, self.made.recommender, step)

    def _finish(
        self, table: Mapping[str, Mapping[str, float]], progress: closing.TrainingProgress
    ) -> None:
        """Writes the result; on the first rank only."""
        options = self.run.evaluation
        rows = results.gather_rows(self.made.recommender.evaluator.rows) if options.test else []
        if get_rank() != 0:
            self._record_cost()  # the first rank reads it behind the sum, for which it waits
        counts = self.meter.compute_total()
        if get_rank() != 0:
            return
        tested: closing.FinalTest | None = None
        if options.test:
            test = table[self.folder.name]
            tested = closing.make_final_test(self.run, self.made, self.start.floors, test, rows)
        notes = self._list_remarks(tested)
        result = {**self._make_result(tested, progress, counts), "notes": notes}
        results.write_result(self.folder, result, None if tested is None else tested.cases)
        (self.folder / LAST).unlink(missing_ok=True)
        label = self.run.experiment or get_choice_name(self.run.architecture)
        own = self.folder.name  # too long for a column
        display.print_results({label if k == own else k: v for k, v in table.items()}, options)
        if tested is not None and tested.beyond is not None:
            display.print_beyond(tested.beyond, options)
        if self.run.profile:
            profiling.show(self._compute_profile(counts))
        print(*notes, sep="\n", end="\n" if notes else "")
        if self.wandb is not None:
            wanted = self.run.tracking.checkpoint_artifact and self.best.path.is_file()
            why = self.wandb.finish(result, table, self.best.path if wanted else None)
            if why:
                print(f"warning: {why}", file=sys.stderr)
            elif self.wandb.offline:
                print(self.wandb.describe_sync())
        print(f"result: {self.folder}")

    def _list_remarks(self, tested: closing.FinalTest | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        if not self.run.architecture.trains:
            return []
        said = remarks.describe_training(self.run, read_validations(self.folder / FILE))
        if tested is None:
            return said
        monitor, start = self.run.evaluation.monitor, self.made.recommender.start
        return [
            *remarks.describe_shortfalls(
                monitor, tested.test, self.start.floors, start, tested.cases
            ),
            *said,
        ]

    def _make_result(
        self,
        tested: closing.FinalTest | None,
        progress: closing.TrainingProgress,
        counts: TrainingCounts,
    ) -> dict[str, object]:
        """What `result.json` holds."""
        self._record_cost()
        profile: Mapping[str, float | None] = {}
        if self.run.profile:
            profile = self._compute_profile(counts)
            profiling.write(self.folder, profile, counts, self.profile.gemms)
        others = rank_cost.read_others(self.folder, self.run.trainer.devices)
        cost = closing.summarize_cost(
            self.run, self.made, self.start, counts, progress, others, self.startup
        )
        protocol = closing.summarize_protocol(self.run, self.made)
        return {
            **({} if tested is None else tested.figures),
            "validation": closing.summarize_validation(self.best, progress),
            "train": closing.summarize_training(self.rows, self.made),
            "protocol": {**protocol, **({} if tested is None else tested.protocol)},
            "cost": {**cost, **profile},
            **closing.summarize_provenance(self.run, self.made),
        }

    def _compute_profile(self, counts: TrainingCounts) -> dict[str, float | None]:
        """Where the time went, as accounted last."""
        return profiling.compute_profile(
            self.start.stages, counts, self.profile.peak, self.run.trainer.devices
        )

    def _make_loggers(self) -> list[Logger]:
        """CSV always; the others as asked, on the first rank only."""
        found: list[Logger] = [self.csv]
        if get_rank() != 0:
            return found
        options = self.run.tracking
        if options.tensorboard:
            found.append(tensorboard.make_tensorboard_logger(self.folder))
        if options.wandb != "off":
            self.wandb = logs.WandbLog(self.folder, self.start.wandb, make_node(self.run))
            found.append(self.wandb)
        return found

    def _make_trainer(self) -> lp.Trainer:
        """A Trainer from typed options."""
        options = self.run.trainer
        callbacks: list[Callback] = [self.profile] if self.run.profile else []
        callbacks += [self.meter, BatchSeeder(self.run.seed)]
        callbacks += [self.rows, self.best]
        if options.encoder_updates != EVERY_STEP and self.run.architecture.trains:
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
        return lp.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy="ddp" if options.devices > 1 else "auto",
            precision=NAMES[options.precision],
            max_epochs=options.epochs,
            max_steps=-1 if options.max_steps is None else options.max_steps,
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=self.run.optimizer.clip or None,
            deterministic=options.deterministic,
            callbacks=[self.bar, *callbacks, self.save],
            plugins=[AtomicCheckpointIO()],
            profiler=StageProfiler(self.watch) if self.run.profile else None,
            logger=self._make_loggers(),
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # Epochs cut by tokens differ in their number of batches; the loader is asked anew.
            reload_dataloaders_every_n_epochs=0 if options.batch_tokens is None else 1,
        )


def _track_batches(batches: Iterable[Batch], task: ProgressTask) -> Iterator[Batch]:
    """The batches, each counted when it is done."""
    for batch in batches:
        yield batch
        task.advance()


def _test(trainer: lp.Trainer, made: Assembly) -> dict[str, float]:
    """Test metrics in double precision; what Lightning logs is rounded to single."""
    trainer.test(made.recommender, made.datamodule, verbose=False)
    found = made.recommender.evaluator.metrics.compute()
    return {name: float(value) for name, value in found.items()}


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
