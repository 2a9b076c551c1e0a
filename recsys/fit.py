"""python -m recsys.fit experiment=NAME key=value ...: compose, train, test, write the result."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.config import AXES, Run, choice_name, compose, to_node, to_yaml
from recsys.errors import ConfigError, RecsysError
from recsys.resume import FOLDER, LAST, Leave, Signals, Start, inherited, rank, reopen
from recsys.usage import help_text

if TYPE_CHECKING:
    import lightning.pytorch as lp
    import polars as pl
    from lightning.pytorch.loggers import Logger

    from recsys.build import Assembly
    from recsys.tracking import WandbLog


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 2 for a mistake of the user, told in one sentence; 128 + signal where
        one ended the run.
    """
    words = [w for w in argv if not w.startswith("--")]
    flags = {w for w in argv if w.startswith("--")}
    try:
        if flags - {"--help", "--print-config"}:
            odd = min(flags - {"--help", "--print-config"})
            raise ConfigError(f"{odd} is not a flag; there are --help and --print-config.")
        if "--help" in flags:
            print(help_text("fit"))
            return 0
        run, folder = _asked(words)
        if "--print-config" in flags:
            print(to_yaml(run), end="")
            return 0
        fit(run, folder)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Leave as leave:
        return int(leave.code or 0)
    return 0


def _asked(words: Sequence[str]) -> tuple[Run, Path | None]:
    """The run that the words name, and its folder where it has one already."""
    handed = inherited()
    if handed is not None:
        return handed
    names = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    if not names:
        return compose(words), None
    return reopen(names[-1], [word for word in words if not word.startswith("resume=")])


def fit(run: Run, folder: Path | None = None) -> Path:
    """Trains and tests one run.

    Args:
        run: Its configuration.
        folder: Where it goes on after a stop; None for a new run.

    Returns:
        The result folder.

    Raises:
        RecsysError: The configuration or the data cannot be used.
        Leave: SIGTERM or SIGINT came.
    """
    import torch

    from recsys import build, results

    started, cpu = time.monotonic(), time.process_time()
    hush()
    with Signals() as signals:
        try:
            _check_command(run)
            run = resolve(run)
            if run.trainer.threads is not None:
                torch.set_num_threads(run.trainer.threads)
            made = build.assemble(run)
            if folder is None:
                name = run.experiment or choice_name(run.architecture)
                folder = results.new_folder(run.output, name, to_yaml(run))
            job = Job(run, folder, made, signals)
            return job.run_all(started, cpu)
        except Leave as leave:
            if rank() == 0:
                after = f"; go on with: python -m recsys.fit resume={folder}" if folder else ""
                print(f"stopped by {leave.name}{after}", file=sys.stderr)
            raise


def _check_command(run: Run) -> None:
    """Refuses several processes where the program is another: each of them would run that again.

    Raises:
        ConfigError: More than one device in a program that is not this command.
    """
    spec = sys.modules["__main__"].__spec__
    if run.trainer.devices > 1 and (spec is None or spec.name != "recsys.fit"):
        raise ConfigError(
            f"trainer.devices={run.trainer.devices} starts the command again for each device; "
            "run it as python -m recsys.fit."
        )
    if run.trainer.devices < 1 or run.trainer.log_every < 1:
        raise ConfigError("trainer.devices and trainer.log_every are at least 1.")


def resolve(run: Run) -> Run:
    """The run with every `auto` decided, so that all ranks and a later resume agree."""
    from recsys.callbacks import accelerator, precision
    from recsys.tracking import wandb_mode

    run.trainer.accelerator = accelerator(run.trainer.accelerator)
    run.trainer.precision = precision(run.trainer.precision, run.trainer.accelerator)
    run.tracking.wandb = wandb_mode(run.tracking.wandb)
    return run


def hush() -> None:
    """Turns off what libraries print that a user of this command cannot act on."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric).*")


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
        from recsys.callbacks import Best, Save
        from recsys.tracking import CsvLog

        self.run, self.folder, self.made, self.signals = run, folder, made, signals
        self.best = Best(
            folder / "checkpoints" / "best.safetensors", f"val/{run.evaluation.monitor}"
        )
        self.save = Save(folder / LAST, run.checkpoint.every_minutes, signals)
        start = Start.read(folder)
        if start is not None and start.fingerprint != made.fingerprint:
            raise ConfigError(f"{folder}: the data has changed since the run began; start a new.")
        if start is None:
            start = Start(made.fingerprint, wandb=secrets.token_hex(4))
        elif rank() == 0:
            start.resumes += 1
        self.start = start
        self.csv = CsvLog(folder / "log" / "metrics.csv")
        self.wandb: WandbLog | None = None

    def run_all(self, started: float, cpu: float) -> Path:
        """Floors, training, test and result.

        Args:
            started: Monotonic time at which the command began.
            cpu: CPU seconds of the process at that time.
        """
        first = rank() == 0
        if first:
            print(f"run: {self.folder}", *self.made.split.notes, sep="\n")
            self._floors()
        many = self.run.trainer.devices > 1
        if first and many:
            os.environ[FOLDER] = str(self.folder)
        trainer = None
        try:
            trainer = self._trainer()
            table, seconds = self._train_and_test(trainer)
            self._finish(table, seconds, started, cpu)
        except BaseException:
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
        from recsys import build

        self.start.write(self.folder)
        for name in build.FLOORS if self.run.architecture.trains else ():
            if name not in self.start.floors:
                batches = self.made.datamodule.test_dataloader()
                self.start.floors[name] = build.floor(name, self.made.parts).evaluate(batches)
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
                trainer.strategy.barrier("best")
                model.load_trained(self.best.path)
        table = {**self.start.floors, self.folder.name: _test(trainer, self.made)}
        return table, self.save.total_seconds() if self.run.architecture.trains else 0.0

    def _finish(
        self, table: Mapping[str, Mapping[str, float]], seconds: float, started: float, cpu: float
    ) -> None:
        """Writes the result; on the first rank only."""
        from recsys import results

        rows = results.gather(self.made.recommender.evaluator.rows)
        if rank() != 0:
            return
        cases = results.cases_frame(rows, self.made.tables)
        model = self.made.recommender
        result = {
            "test": table[self.folder.name],
            "floors": self.start.floors,
            "validation": {
                "monitor": self.best.monitor,
                "best": self.best.value,
                "step": self.best.step,
            },
            "protocol": self._protocol(cases),
            "cost": {
                "trained_parameters": sum(p.numel() for p in model.trained().values()),
                "parameters": sum(p.numel() for p in model.parameters()),
                "train_seconds": seconds,
                "seconds": time.monotonic() - started,
                "cpu_seconds": time.process_time() - cpu,
                "anonymous_mb": results.peak_anonymous_mb(),
                "devices": self.run.trainer.devices,
                "resumes": self.start.resumes,
            },
            "data": {"fingerprint": self.made.fingerprint, "split": self.made.split.name},
            "versions": results.versions(),
            "code": results.commit(),
        }
        results.write(self.folder, result, cases)
        (self.folder / LAST).unlink(missing_ok=True)
        results.show(table, self.run.evaluation.k[0])
        if self.best.step == 0 and model.trained():
            print("the best validation was before the first step: training did not help")
        if self.wandb is not None:
            wanted = self.run.tracking.checkpoint_artifact and self.best.path.is_file()
            self.wandb.finish(result, table, self.best.path if wanted else None)
            if self.wandb.offline:
                print(self.wandb.sync_line())
        print(f"result: {self.folder}")

    def _protocol(self, cases: pl.DataFrame) -> dict[str, object]:
        """What was ranked, and what could not be found."""
        options = self.run.evaluation
        out: dict[str, object] = {
            "name": options.protocol,
            "mask_history": options.mask_history,
            "catalog": len(self.made.tables.items),
            "unreachable": int(cases["unreachable"].sum()),
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
        from recsys import tracking

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
        import lightning.pytorch as lp
        from lightning.pytorch.callbacks import Callback, EarlyStopping

        from recsys.callbacks import NAMES, BatchSeed, Watch, WholeFile

        options = self.run.trainer
        callbacks: list[Callback] = [BatchSeed(self.run.seed), Watch(options.log_every), self.best]
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
            callbacks=[*callbacks, self.save],
            plugins=[WholeFile()],
            logger=self._loggers(),
            enable_checkpointing=True,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=options.log_every,
            use_distributed_sampler=False,
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
    """Test metrics without the `test/` before their names."""
    trainer.test(made.recommender, made.datamodule, verbose=False)
    found = trainer.callback_metrics.items()
    return {name[5:]: float(value) for name, value in found if name.startswith("test/")}


def _end_ranks(trainer: lp.Trainer) -> None:
    """Ends the ranks that this process launched, which may wait for it in vain.

    A rank that was told to leave by a common decision gets the time to do so.
    """
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    for process in launcher.procs:
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
