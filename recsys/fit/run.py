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
from recsys.config.compose import Run, choice_name, to_node
from recsys.errors import ConfigError, DataError
from recsys.evaluation.evaluator import cutoffs
from recsys.fit import remarks
from recsys.fit import result as closing
from recsys.fit.progress_bars import Bar, Course, header, validation_line
from recsys.runs import rank_cost, results
from recsys.runs.failures import memory_told, state
from recsys.runs.folder import ENDED, LAST, Signals, Start, config_checksum
from recsys.runs.rank_cost import RankCost
from recsys.runs.validation_log import FILE, Validations, told
from recsys.runtime import excluded_time, rank_errors
from recsys.runtime.excluded_time import Spent
from recsys.runtime.hardware import NAMES
from recsys.runtime.memory import Sampler
from recsys.runtime.progress import Task, heard, track
from recsys.runtime.ranks import FOLDER, rank
from recsys.runtime.stopwatch import Stopwatch
from recsys.tracking import logs
from recsys.training import profiling
from recsys.training.callbacks import BatchSeed, Best, Watch
from recsys.training.cost import Counts, Meter
from recsys.training.item_table import EVERY_STEP, Distill
from recsys.training.profiling import Profile, Stages
from recsys.training.resume import Save, WholeFile
from recsys.types import Batch


class Job:
    """One run in its folder: on every rank, and again after every stop.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    def __init__(self, run: Run, folder: Path, made: Assembly, signals: Signals) -> None:
        self.run, self.folder, self.made, self.signals = run, folder, made, signals
        self.save = Save(folder / LAST, run.checkpoint.every_minutes, signals, self._account)
        self.best = Best(
            folder / "checkpoints" / "best.safetensors",
            f"val/{run.evaluation.monitor}",
            run.checkpoint.pick,
            Validations(folder / FILE),
            self.save.total_seconds,
            self._tell,
        )
        self.course = Course(run.evaluation.test)
        self.bar = Bar(self.course)
        self.rows = Watch(run.trainer.log_every, self.save.total_seconds)
        self.memory = Sampler()
        start = Start.read(folder)
        if start is not None and start.fingerprint != made.fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            start = Start(
                made.fingerprint, wandb=secrets.token_hex(4), config=config_checksum(folder)
            )
        elif rank() == 0:
            start.resumes += 1
        self.start = start
        # Each rank goes on from what it has cost itself.
        own = None if rank() == 0 else rank_cost.read(folder, rank()) or RankCost()
        self.own = own or RankCost.of(start.spent, start.beside, start.peak_mb)
        self.startup = Spent()
        self.watch = Stopwatch(run.profile, start.stages)
        self.meter, self.profile = Meter(run.profile), Profile(self.watch, run.trainer.precision)
        self.clock, self.beside = excluded_time.now(), excluded_time.spent()
        self.csv = logs.CsvLog(folder / "log" / "metrics.csv")
        self.wandb: logs.WandbLog | None = None

    def run_all(self, started: Spent, beside: Spent, startup: Spent) -> Path:
        """Floors, training, test and result.

        Args:
            started: The clocks when the command began.
            beside: What the process had spent beside its methods by then.
            startup: What passed from there until a run could be made, imports above all.

        Raises:
            RecsysError: The data cannot be used, the training diverged, or memory did not suffice.
            Leave: A signal ended it.
        """
        first = rank() == 0
        self.clock, self.beside = started.minus(self.own.spent), beside.minus(self.own.beside)
        self.startup = startup
        self.watch.begin(started.seconds)
        many = self.run.trainer.devices > 1
        trainer = None
        try:
            with self.memory, memory_told():
                if first:
                    (self.folder / ENDED).unlink(missing_ok=True)  # of an attempt before
                    rank_errors.clear_note(self.folder)
                    print(
                        f"run: {self.folder}",
                        *self.made.split.notes,
                        *inactive.notes(self.run),
                        *header(self.run, self.made),
                        sep="\n",
                        flush=True,
                    )
                    self._floors()
                    if many:
                        os.environ[FOLDER] = str(self.folder)
                trainer = self._trainer()
                self.watch.set_out()
                with self._others(trainer) if first and many else nullcontext():
                    self._finish(*self._train_and_test(trainer))
        except BaseException as error:
            with suppress(DataError):  # a full disk has been told already
                self._account()
            self._close(error)
            if trainer is not None and first:
                _end_ranks(trainer)
            raise
        finally:
            if first and many:
                os.environ.pop(FOLDER, None)
        return self.folder

    @contextmanager
    def _others(self, trainer: lp.Trainer) -> Iterator[None]:
        """Hears of an error on another rank; for the first one."""
        with (
            rank_errors.Lookout(self.folder, self._close, lambda: _processes(trainer)),
            rank_errors.others_told(self.folder),
        ):
            yield

    def _close(self, error: BaseException) -> None:
        """Closes the run at Weights & Biases after what ended it."""
        if self.wandb is not None:
            self.wandb.close(1, state(error, self.folder))

    def _floors(self) -> None:
        """Makes what is still missing of the test metrics of the baselines, over the same cases."""
        self.start.write(self.folder)
        wanted = self.run.architecture.trains and self.run.evaluation.test
        for name in protocols.floors(self.run.evaluation) if wanted else ():
            if name not in self.start.floors:
                with excluded_time.beside():
                    batches = self.made.datamodule.test_dataloader()
                    model = build.floor(name, self.made.parts)
                    with track(f"test of {name}", len(batches), "batches") as task:
                        self.start.floors[name] = model.evaluate(_told(batches, task))
                self.start.write(self.folder)
        if told := protocols.telling(self.start.floors, self.run.evaluation.monitor):
            print(told)

    def _account(self) -> None:
        """Notes what the run has cost so far, over all stops; each rank for itself."""
        self.memory.sample()
        spent, beside = (
            excluded_time.now().minus(self.clock),
            excluded_time.spent().minus(self.beside),
        )
        peak = max(self.own.peak_mb, self.memory.peak)
        if rank() != 0:
            rank_cost.write(self.folder, rank(), RankCost.of(spent, beside, peak))
            return
        self.start.spent, self.start.beside, self.start.peak_mb = spent, beside, peak
        if self.run.profile:
            self.start.stages = self.watch.seconds()
        self.start.write(self.folder)

    def _train_and_test(
        self, trainer: lp.Trainer
    ) -> tuple[dict[str, dict[str, float]], closing.Progress]:
        """The closing table, and how far training came."""
        model = self.made.recommender
        options, trains = self.run.evaluation, self.run.architecture.trains
        still = self._stays()
        # Every rank must take the same way; only the file that all of them see decides.
        if trains and options.test and not still and model.start not in self.start.floors:
            loggers, trainer.loggers = trainer.loggers, []
            self.bar.test = f"{model.start} test"
            with excluded_time.beside():
                self.start.floors[model.start] = _test(trainer, self.made)
            self.bar.test = "test"
            trainer.loggers = loggers
            if rank() == 0:
                self.start.write(self.folder)
        if trains:
            self._train(trainer)
        elif not options.test:
            self._validate(trainer, 0)
        done = closing.Progress.of(self.made, self.save.total_seconds() if trains else 0.0)
        if trains and done.steps:
            trainer.strategy.barrier("best")
            model.load_trained(self.best.path)
        if not options.test:
            shown = {0: self.best.first, self.best.step: self.best.metrics}
            return {f"step {step}": metrics for step, metrics in shown.items()}, done
        if options.beyond and options.protocol == "catalog":
            # Of this pass only: what floors and the untrained encoder recommend is not looked at.
            model.evaluator.keep = max(cutoffs(options))
        test = _test(trainer, self.made)
        if trains and still:
            self.start.floors[model.start] = test
        floors = {k: v for k, v in self.start.floors.items() if not (still and k == model.start)}
        return {**floors, self.folder.name: test}, done

    def _stays(self) -> bool:
        """Whether nothing trains, so that the run is its own start."""
        return not self.made.recommender.trained() or self.run.trainer.max_steps == 0

    def _train(self, trainer: lp.Trainer) -> None:
        """Trains, or goes on, with a validation before the first and after the last step."""
        last = self.folder / LAST
        resumed = last.is_file()
        if not resumed:
            self.csv.rewind(-1)  # of an attempt that left no checkpoint
            if rank() == 0:
                self.best.lines.rewind(-1)
            self._validate(trainer, 0)
        model = self.made.recommender
        if self._stays():
            return
        checkpoint = str(last) if resumed else None
        trainer.fit(model, self.made.datamodule, ckpt_path=checkpoint, weights_only=True)
        if self.best.seen != trainer.global_step:  # max_steps ended it within an epoch
            self._validate(trainer, trainer.global_step)
            # A stop from here on must not validate and log that again.
            self.save.write(trainer)

    def _tell(
        self, trainer: lp.Trainer, metrics: Mapping[str, float], step: int, kept: bool
    ) -> None:
        """Prints what a validation found."""
        best, left = kept and self.run.checkpoint.pick == "best", self.course.left(trainer)
        monitor = self.run.evaluation.monitor
        print(validation_line(trainer, monitor, metrics, step, best, left), flush=True)
        heard()

    def _validate(self, trainer: lp.Trainer, step: int) -> None:
        """A validation outside of the training loop."""
        trainer.validate(self.made.recommender, self.made.datamodule, verbose=False)
        self.best.offer(trainer, self.made.recommender, step)

    def _finish(self, table: Mapping[str, Mapping[str, float]], progress: closing.Progress) -> None:
        """Writes the result; on the first rank only."""
        options = self.run.evaluation
        rows = results.gather(self.made.recommender.evaluator.rows) if options.test else []
        if rank() != 0:
            self._account()  # the first rank reads it behind the sum, for which it waits
        counts = self.meter.total()
        if rank() != 0:
            return
        tested: closing.Tested | None = None
        if options.test:
            test = table[self.folder.name]
            tested = closing.tested(self.run, self.made, self.start.floors, test, rows)
        notes = self._remarks(tested)
        result = {**self._result(tested, progress, counts), "notes": notes}
        results.write(self.folder, result, None if tested is None else tested.cases)
        (self.folder / LAST).unlink(missing_ok=True)
        label = self.run.experiment or choice_name(self.run.architecture)
        own = self.folder.name  # too long for a column
        results.show({label if k == own else k: v for k, v in table.items()}, options)
        if tested is not None and tested.beyond is not None:
            results.show_beyond(tested.beyond, options)
        if self.run.profile:
            profiling.show(self._profile(counts))
        print(*notes, sep="\n", end="\n" if notes else "")
        if self.wandb is not None:
            wanted = self.run.tracking.checkpoint_artifact and self.best.path.is_file()
            why = self.wandb.finish(result, table, self.best.path if wanted else None)
            if why:
                print(f"warning: {why}", file=sys.stderr)
            elif self.wandb.offline:
                print(self.wandb.sync_line())
        print(f"result: {self.folder}")

    def _remarks(self, tested: closing.Tested | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        if not self.run.architecture.trains:
            return []
        said = remarks.training(self.run, told(self.folder / FILE))
        if tested is None:
            return said
        monitor, start = self.run.evaluation.monitor, self.made.recommender.start
        return [
            *remarks.below(monitor, tested.test, self.start.floors, start, tested.cases),
            *said,
        ]

    def _result(
        self, tested: closing.Tested | None, progress: closing.Progress, counts: Counts
    ) -> dict[str, object]:
        """What `result.json` holds."""
        self._account()
        profile: Mapping[str, float | None] = {}
        if self.run.profile:
            profile = self._profile(counts)
            profiling.write(self.folder, profile, counts, self.profile.gemms)
        others = rank_cost.others(self.folder, self.run.trainer.devices)
        cost = closing.cost(self.run, self.made, self.start, counts, progress, others, self.startup)
        protocol = closing.protocol(self.run, self.made)
        return {
            **({} if tested is None else tested.figures),
            "validation": closing.validation(self.best, progress),
            "train": closing.train(self.rows, self.made),
            "protocol": {**protocol, **({} if tested is None else tested.protocol)},
            "cost": {**cost, **profile},
            **closing.circumstances(self.run, self.made),
        }

    def _profile(self, counts: Counts) -> dict[str, float | None]:
        """Where the time went, as accounted last."""
        return profiling.figures(
            self.start.stages, counts, self.profile.peak, self.run.trainer.devices
        )

    def _loggers(self) -> list[Logger]:
        """CSV always; the others as asked, on the first rank only."""
        found: list[Logger] = [self.csv]
        if rank() != 0:
            return found
        options = self.run.tracking
        if options.tensorboard:
            found.append(logs.tensorboard(self.folder))
        if options.wandb != "off":
            self.wandb = logs.WandbLog(self.folder, self.start.wandb, to_node(self.run))
            found.append(self.wandb)
        return found

    def _trainer(self) -> lp.Trainer:
        """A Trainer from typed options."""
        options = self.run.trainer
        callbacks: list[Callback] = [self.profile] if self.run.profile else []
        callbacks += [self.meter, BatchSeed(self.run.seed)]
        callbacks += [self.rows, self.best]
        if options.encoder_updates != EVERY_STEP and self.run.architecture.trains:
            clip, size = self.run.optimizer.clip, options.batch_size
            callbacks.append(Distill(options.encoder_updates, size, clip, self.run.seed))
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
            plugins=[WholeFile()],
            profiler=Stages(self.watch) if self.run.profile else None,
            logger=self._loggers(),
            enable_checkpointing=True,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # Epochs cut by tokens differ in their number of batches; the loader is asked anew.
            reload_dataloaders_every_n_epochs=0 if options.batch_tokens is None else 1,
        )


def _told(batches: Iterable[Batch], task: Task) -> Iterator[Batch]:
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
    for process in _processes(trainer):
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()


def _processes(trainer: lp.Trainer) -> Sequence[subprocess.Popen[bytes]]:
    """The other ranks that this process has launched by now."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else ()
