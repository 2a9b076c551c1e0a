"""One run in its folder: floors, training, test and result."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as lp
import polars as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor

from recsys import beyond, build, profiling, protocols, record, results, slices, tracking
from recsys.build import Assembly
from recsys.callbacks import Bar, BatchSeed, Best, Memory, Watch
from recsys.config import AXES, Run, choice_name, to_node
from recsys.errors import ConfigError, DataError
from recsys.evaluation import cutoffs, label
from recsys.hardware import NAMES
from recsys.itemtable import EVERY_STEP, Distill
from recsys.meter import Counts, Meter
from recsys.profiling import Profile, Stages
from recsys.resume import FOLDER, LAST, Signals, Start, rank
from recsys.saving import Save, WholeFile
from recsys.stopwatch import Stopwatch
from recsys.trained import TABLE


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
        self.best = Best(
            folder / "checkpoints" / "best.safetensors", f"val/{run.evaluation.monitor}"
        )
        self.save = Save(folder / LAST, run.checkpoint.every_minutes, signals, self._account)
        self.memory = Memory(run.trainer.log_every)
        start = Start.read(folder)
        if start is not None and start.fingerprint != made.fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            start = Start(made.fingerprint, wandb=secrets.token_hex(4))
        elif rank() == 0:
            start.resumes += 1
        self.start = start
        self.watch = Stopwatch(run.profile, start.stages)
        self.meter, self.profile = Meter(run.profile), Profile(self.watch, run.trainer.precision)
        self.clock, self.cpu = time.monotonic(), time.process_time()
        self.csv = tracking.CsvLog(folder / "log" / "metrics.csv")
        self.wandb: tracking.WandbLog | None = None

    def run_all(self, started: float, cpu: float) -> Path:
        """Floors, training, test and result.

        Args:
            started: Monotonic time at which the command began.
            cpu: CPU seconds of the process at that time.
        """
        first = rank() == 0
        self.clock, self.cpu = started - self.start.seconds, cpu - self.start.cpu_seconds
        self.watch.begin(started)
        if first:
            print(f"run: {self.folder}", *self.made.split.notes, sep="\n")
            self._floors()
        many = self.run.trainer.devices > 1
        if first and many:
            os.environ[FOLDER] = str(self.folder)
        trainer = None
        try:
            trainer = self._trainer()
            self.watch.set_out()
            table, seconds = self._train_and_test(trainer)
            self._finish(table, seconds)
        except BaseException:
            with suppress(DataError):  # a full disk has been told already
                self._account()
            if self.wandb is not None:
                self.wandb.close(1)
            if trainer is not None and first:
                _end_ranks(trainer)
            raise
        finally:
            if first and many:
                del os.environ[FOLDER]
        return self.folder

    def _floors(self) -> None:
        """Makes what is still missing of the test metrics of the baselines, over the same cases."""
        self.start.write(self.folder)
        for name in build.FLOORS if self.run.architecture.trains else ():
            if name not in self.start.floors:
                batches = self.made.datamodule.test_dataloader()
                self.start.floors[name] = build.floor(name, self.made.parts).evaluate(batches)
                self.start.write(self.folder)

    def _account(self) -> None:
        """Notes what the run has cost so far, over all stops; on the first rank only."""
        self.memory.sample()
        if rank() != 0:
            return
        self.start.seconds = time.monotonic() - self.clock
        self.start.cpu_seconds = time.process_time() - self.cpu
        self.start.peak_mb = max(self.start.peak_mb, self.memory.peak)
        if self.run.profile:
            self.start.stages = self.watch.seconds()
        self.start.write(self.folder)

    def _train_and_test(self, trainer: lp.Trainer) -> tuple[dict[str, dict[str, float]], float]:
        """The closing table and the seconds of training."""
        model, data = self.made.recommender, self.made.datamodule
        if self.run.architecture.trains:
            # Every rank must take the same way; only the file that all of them see decides.
            if "zero-shot" not in self.start.floors:
                loggers, trainer.loggers = trainer.loggers, []
                self.start.floors["zero-shot"] = _test(trainer, self.made)
                trainer.loggers = loggers
                if rank() == 0:
                    self.start.write(self.folder)
            last = self.folder / LAST
            resumed = last.is_file()
            if not resumed:
                self.csv.rewind(-1)  # of an attempt that left no checkpoint
                trainer.validate(model, data, verbose=False)
                self.best.offer(trainer, model, step=0)
            if model.trained():
                trainer.fit(
                    model, data, ckpt_path=str(last) if resumed else None, weights_only=True
                )
                if self.best.seen != trainer.global_step:  # max_steps ended it within an epoch
                    trainer.validate(model, data, verbose=False)
                    self.best.offer(trainer, model, trainer.global_step)
                    # A stop from here on must not validate and log that again.
                    self.save.write(trainer)
                trainer.strategy.barrier("best")
                model.load_trained(self.best.path)
        options = self.run.evaluation
        if options.beyond and options.protocol == "catalog":
            # Of this pass only: what floors and the untrained encoder recommend is not looked at.
            model.evaluator.keep = max(cutoffs(options))
        table = {**self.start.floors, self.folder.name: _test(trainer, self.made)}
        return table, self.save.total_seconds() if self.run.architecture.trains else 0.0

    def _finish(self, table: Mapping[str, Mapping[str, float]], seconds: float) -> None:
        """Writes the result; on the first rank only."""
        rows = results.gather(self.made.recommender.evaluator.rows)
        counts = self.meter.total()
        if rank() != 0:
            return
        slicing = self._slicing()
        further = self._beyond(rows, slicing)
        cases = slices.annotate(results.cases_frame(rows, self.made.tables), slicing)
        result = {**self._result(table[self.folder.name], seconds, cases, counts), **further}
        results.write(self.folder, result, cases)
        (self.folder / LAST).unlink(missing_ok=True)
        results.show(table, self.run.evaluation)
        if "beyond" in further:
            results.show_beyond(further["beyond"], self.run.evaluation)
        if self.run.profile:
            profiling.show(self._profile(counts))
        if self.best.step == 0 and self.made.recommender.trained():
            print("the best validation was before the first step: training did not help")
        if self.wandb is not None:
            wanted = self.run.tracking.checkpoint_artifact and self.best.path.is_file()
            self.wandb.finish(result, table, self.best.path if wanted else None)
            if self.wandb.offline:
                print(self.wandb.sync_line())
        print(f"result: {self.folder}")

    def _slicing(self) -> slices.Slicing:
        """What the test cases are cut by."""
        counts = self.made.examples.train_counts()
        columns = tuple(self.run.evaluation.slices)
        return slices.Slicing(self.made.tables, self.made.split, counts, columns)

    def _beyond(
        self, rows: list[dict[str, Tensor]], by: slices.Slicing
    ) -> dict[str, dict[str, object]]:
        """Measures beyond accuracy, where the rows keep the best items, which they lose here."""
        kept = beyond.take(rows)
        if kept is None:
            return {}
        options = self.run.evaluation
        found = beyond.measures(
            *kept, cutoffs(options), by.counts, by.tables, by.split, options.category
        )
        return {"beyond": found}

    def _result(
        self, test: Mapping[str, float], seconds: float, cases: pl.DataFrame, counts: Counts
    ) -> dict[str, object]:
        """What `result.json` holds."""
        self._account()
        profile: Mapping[str, float | None] = {}
        if self.run.profile:
            profile = self._profile(counts)
            profiling.write(self.folder, profile, counts, self.profile.gemms)
        model, options = self.made.recommender, self.run.encoder
        encoder: dict[str, object] = {}
        if model.parts.encoder is not None:
            encoder = {"encoder": record.encoder(options.model, options.revision)}
        return {
            "test": test,
            "floors": self.start.floors,
            "validation": {
                "monitor": self.best.monitor,
                "best": self.best.value,
                "step": self.best.step,
            },
            "protocol": self._protocol(cases),
            "slices": slices.means(
                cases,
                [name for name in results.columns(self.run.evaluation) if "/" not in name],
                label(self.run.evaluation),
                self.run.evaluation.slices,
            ),
            "cost": {
                "trained_parameters": sum(p.numel() for p in model.kept().values()),
                "parameters": sum(
                    p.numel() for name, p in model.named_parameters() if not name.startswith(TABLE)
                ),
                "texts": round(counts.texts),
                "tokens": round(counts.tokens),
                "train_flops": counts.flops,
                "train_seconds": seconds,
                "seconds": self.start.seconds,
                "cpu_seconds": self.start.cpu_seconds,
                "anonymous_peak_mb_sampled": self.start.peak_mb or None,
                "devices": self.run.trainer.devices,
                "resumes": self.start.resumes,
                **record.cache(model.parts.prefix or model.parts.vectors),
                **profile,
            },
            "data": {
                "fingerprint": self.made.fingerprint,
                "split": self.made.split.name,
                **record.data(self.made.split, self.made.datamodule.lists),
            },
            **encoder,
            "versions": record.versions(),
            "code": record.commit(),
        }

    def _profile(self, counts: Counts) -> dict[str, float | None]:
        """Where the time went, as accounted last."""
        return profiling.figures(
            self.start.stages, counts, self.profile.peak, self.run.trainer.devices
        )

    def _protocol(self, cases: pl.DataFrame) -> dict[str, object]:
        """What was ranked, and what could not be found."""
        options = self.run.evaluation
        out: dict[str, object] = {
            "name": options.protocol,
            "mask_history": options.mask_history,
            "catalog": len(self.made.tables.items),
            "unreachable": int(cases["unreachable"].sum()),
            **protocols.described(self.run, self.made.split),
        }
        if options.protocol == "candidates":
            inserted = int(cases["inserted"].sum())
            out |= {
                "candidates": options.candidates,
                "inserted": inserted,
                "list_recall": 1 - inserted / len(cases),
            }
        return out

    def _loggers(self) -> list[Logger]:
        """CSV always; the others as asked, on the first rank only."""
        found: list[Logger] = [self.csv]
        if rank() != 0:
            return found
        options = self.run.tracking
        if options.tensorboard:
            found.append(tracking.tensorboard(self.folder))
        if options.wandb != "off":
            node = to_node(self.run)
            tags = [f"{axis}={choice_name(_axis(self.run, axis))}" for axis in AXES]
            self.wandb = tracking.WandbLog(
                self.folder,
                self.start.wandb,
                options.wandb,
                options.project,
                options.group or self.run.experiment or choice_name(self.run.architecture),
                tags,
                node,
            )
            found.append(self.wandb)
        return found

    def _trainer(self) -> lp.Trainer:
        """A Trainer from typed options."""
        options = self.run.trainer
        callbacks: list[Callback] = [self.profile] if self.run.profile else []
        callbacks += [self.meter, BatchSeed(self.run.seed)]
        callbacks += [Watch(options.log_every, self.save.total_seconds), self.memory, self.best]
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
            callbacks=[Bar(), *callbacks, self.save],
            plugins=[WholeFile()],
            profiler=Stages(self.watch) if self.run.profile else None,
            logger=self._loggers(),
            enable_checkpointing=True,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=options.log_every,
            use_distributed_sampler=False,
            # Epochs cut by tokens differ in their number of batches; the loader is asked anew.
            reload_dataloaders_every_n_epochs=0 if options.batch_tokens is None else 1,
        )


def _axis(run: Run, axis: str) -> object:
    """The choice of an axis."""
    nodes: dict[str, object] = {
        "data.source": run.data.source,
        "tuning": run.tuning,
        "architecture": run.architecture,
        "objective": run.objective,
    }
    return nodes[axis]


def _test(trainer: lp.Trainer, made: Assembly) -> dict[str, float]:
    """Test metrics in double precision; what Lightning logs is rounded to single."""
    trainer.test(made.recommender, made.datamodule, verbose=False)
    found = made.recommender.evaluator.metrics.compute()
    return {name: float(value) for name, value in found.items()}


def _end_ranks(trainer: lp.Trainer) -> None:
    """Ends the ranks that this process launched, which may wait for it in vain.

    A rank that was told to leave by a common decision gets the time to do so.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    for process in launcher.procs:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
