"""The state to go on from: files that are whole or absent, saved where a run can come back to."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import lightning.pytorch as lp
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from recsys.errors import ConfigError
from recsys.recommender.optim import make_divergence_error
from recsys.recommender.stepped import SteppedModule, is_step_end
from recsys.runs.failures import is_out_of_memory
from recsys.runtime.files import write_atomic
from recsys.runtime.ranks import get_rank
from recsys.runtime.signals import Interrupted, SignalHandler
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.wandb_log import WandbLog
from recsys.training.log import NOT_FINITE, is_finite
from recsys.training.logger import LogAdapter
from recsys.training.parallel.state_files import PARTS, restore_whole
from recsys.types import Batch


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints that are whole or absent, and that are read as data, never as code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes aside and renames.

        Raises:
            DataError: The disk is full; the last checkpoint stands.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Reads tensors and plain values only, on the host.

        Raises:
            ConfigError: The file is damaged, or holds more than tensors and plain values.
        """
        loaded = self._read(Path(path))
        return restore_whole(loaded, Path(path), self._read) if PARTS in loaded else loaded

    def _read(self, path: Path) -> dict[str, Any]:
        """One file."""
        try:
            loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"{path} is damaged; delete it and give the same resume= again to train the run "
                "from its beginning."
            ) from None
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint."""
        Path(path).unlink(missing_ok=True)


STOPPED = "stopped_early"
"""Key of a checkpoint: whether early stopping had ended the training."""


class ResumeCheckpoint(Checkpoint):
    """Saves the state to go on from every so often and when a signal came; the last callback.

    It acts only where Lightning can come back to exactly: after a whole optimiser step that no
    validation follows, or after that validation.

    Args:
        path: The checkpoint.
        minutes: Time between two.
        signals: What came meanwhile.
        saved: Called after each save, on every rank.
        processes: How many train together.

    Attributes:
        seconds: Time trained before `_began`.
    """

    def __init__(
        self,
        path: Path,
        minutes: float,
        signals: SignalHandler,
        saved: Callable[[], None],
        processes: int = 1,
    ) -> None:
        self.processes = processes
        self.path, self.minutes, self.signals, self.saved = path, minutes, signals, saved
        self.seconds = 0.0
        self._began: float | None = None
        self._saved = time.monotonic()
        self._points = 0

    def get_total_seconds(self) -> float:
        """Time trained in all, validations not counted."""
        return self.seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    @property
    def state_key(self) -> str:
        """Its name in a saved state, which is part of the format."""
        return "Save"

    def state_dict(self) -> dict[str, Any]:
        """The time trained so far, and by how many processes."""
        return {"seconds": self.get_total_seconds(), "processes": self.processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Adds to the time trained before, and says what other processes cannot repeat."""
        self.seconds = state_dict["seconds"]
        before = state_dict.get("processes", self.processes)  # a state of before has no number
        if before != self.processes and get_rank() == 0:
            print(
                f"note: {before} processes saved the state, and {self.processes} go on from it: "
                "with the same batches, steps and learning rates, but sums are added in another "
                "order, so that losses and metrics agree to rounding only, and dropout is drawn "
                "anew, as by another seed.",
                file=sys.stderr,
                flush=True,
            )

    def on_save_checkpoint(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Notes an early stop, which the Trainer itself forgets."""
        checkpoint[STOPPED] = bool(trainer.should_stop)

    def on_load_checkpoint(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes back what was logged after the checkpoint: it will be logged again.

        What was logged before it and never reached the disk at Weights & Biases is sent now.
        """
        trainer.should_stop = checkpoint[STOPPED]
        logs = [logger.log for logger in trainer.loggers if isinstance(logger, LogAdapter)]
        csv = [log for log in logs if isinstance(log, CsvLog)]
        for log in csv:
            log.rewind(checkpoint["global_step"])
        for tracked in logs:
            if isinstance(tracked, WandbLog) and csv:
                tracked.send_missed_rows(csv[0].list_rows())

    def on_train_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Starts the clock; from here on a signal waits for a whole step."""
        self._began = self._saved = time.monotonic()
        self.signals.training = True
        self.signals.arm()

    def on_validation_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Stops the clock, and takes the signals back from the Trainer."""
        self.seconds, self._began = self.get_total_seconds(), None
        self.signals.arm()

    def on_test_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Takes the signals back from the Trainer."""
        self.signals.arm()

    def on_train_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Saves, so that a stop in the test trains nothing again; then a signal need not wait."""
        self.seconds, self._began = self.get_total_seconds(), None
        self._save_if_due(trainer, ended=True)
        self.signals.training = False

    def on_train_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Acts after a whole step, unless a validation comes next."""
        done = batch_idx + 1
        # Validation comes at the end of each epoch.
        if is_step_end(trainer, done) and done != trainer.num_training_batches:
            self._points += 1
            # Asking a GPU costs a wait; several ranks must all ask or none.
            often = trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu"
            if often or self._points % 10 == 0:
                self._save_if_due(trainer)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Acts after a validation of the training loop."""
        if trainer.state.fn == "fit":
            self._began = time.monotonic()
            self._save_if_due(trainer)

    def write(self, trainer: lp.Trainer) -> None:
        """Saves the log, then the state; on every rank.

        A kill between the two leaves rows beyond the checkpoint, which are forgotten and logged
        again; the other way round rows before it would be lost.
        """
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.path)
        self.saved()
        self._saved = time.monotonic()

    def _save_if_due(self, trainer: lp.Trainer, ended: bool = False) -> None:
        signum, save = self.signals.received, time.monotonic() - self._saved > 60 * self.minutes
        if trainer.world_size > 1:
            flags = torch.tensor([float(signum), float(save)], device=trainer.strategy.root_device)
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
            signum, save = int(flags[0]), bool(flags[1])
        if signum or save or ended:
            self._write_if_finite(trainer, signum)
        if signum:
            raise Interrupted(signum)

    def _write_if_finite(self, trainer: lp.Trainer, signum: int) -> None:
        """Saves a state that is worth going on from.

        Raises:
            DivergenceError: The loss or a parameter is not finite, and no signal ends the run
                anyway; the last checkpoint stands.
        """
        model = cast(SteppedModule[Any], trainer.lightning_module)
        if is_finite(model):
            self.write(trainer)
        elif not signum:
            raise make_divergence_error(NOT_FINITE, trainer.global_step, trainer.optimizers)
