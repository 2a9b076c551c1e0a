"""What a training shows of itself while it lasts: bars, and the time that is left."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback

from recsys.data.batches.batching import PlannedBatches
from recsys.recommender.stepped import SteppedModule
from recsys.runtime.progress import ProgressTask, format_duration, track
from recsys.types import Batch


class RemainingTime:
    """How long a run still takes, by what it took until now.

    Args:
        tests: Whether it ends with a test.
    """

    def __init__(self, tests: bool) -> None:
        self._tests = tests
        self._passes: dict[str, list[float]] = {"val": [], "test": []}
        self._began: tuple[float, int] | None = None
        self._paused = 0.0

    def begin(self, step: int) -> None:
        """Training begins, or goes on, at a step."""
        self._began, self._paused = (time.monotonic(), step), 0.0

    def add_pass(self, part: str, seconds: float) -> None:
        """A pass over the cases of a part took so long; `val` within training or not."""
        self._passes[part].append(seconds)
        self._paused += seconds

    def estimate_seconds(self, trainer: lp.Trainer) -> float | None:
        """Seconds to the result; None before the first step of this attempt."""
        if self._began is None or trainer.global_step <= self._began[1]:
            return None
        data: PlannedBatches = trainer.datamodule  # type: ignore[attr-defined]
        windows = trainer.accumulate_grad_batches
        steps = data.count_steps(trainer.max_epochs or 1, windows, trainer.max_steps)
        rest = max(0, steps - trainer.global_step)
        spent = time.monotonic() - self._began[0] - self._paused
        each = spent / (trainer.global_step - self._began[1])
        epoch = max(1, math.ceil(trainer.num_training_batches / windows))
        ahead = math.ceil(rest / epoch) * _compute_mean(self._passes["val"])
        test = _compute_mean(self._passes["test"] or self._passes["val"]) if self._tests else 0.0
        return each * rest + ahead + test


def _compute_mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class ProgressBar(Callback):
    """Shows epochs, validations and tests while they last.

    Often enough to see it move and no more: drawing at each step would take a good part of a step
    that trains heads alone.

    Args:
        course: Is told what each pass took.

    Attributes:
        test: What the next test is called.
    """

    def __init__(self, course: RemainingTime) -> None:
        self.course, self.test = course, "test"
        self._drawn = 0.0
        self._epoch, self._pass = ExitStack(), ExitStack()
        self._steps, self._cases = ProgressTask("", 0, ""), ProgressTask("", 0, "")
        self._began = 0.0

    def on_train_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Starts the clock of the training."""
        self.course.begin(trainer.global_step)

    def on_train_epoch_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Shows an epoch."""
        self._epoch.close()
        what = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        total = int(trainer.num_training_batches)
        self._steps = self._epoch.enter_context(track(what, total, "batches"))

    def on_train_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Draws, unless it has just done so; always after the last batch of an epoch."""
        now = time.monotonic()
        if now - self._drawn < 0.1 and batch_idx + 1 != trainer.num_training_batches:
            return
        self._drawn = now
        self._steps.advance_to(batch_idx + 1, lambda: self._format_note(trainer, pl_module))

    def _format_note(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> str:
        """The loss of the last step, and the time to the result; reads the loss off its device."""
        said = []
        if isinstance(pl_module, SteppedModule) and pl_module.train_loss is not None:
            said.append(f"loss {float(pl_module.train_loss):.4f}")
        left = self.course.estimate_seconds(trainer)
        return ", ".join([*said, *([] if left is None else [f"left {format_duration(left)}"])])

    def on_train_epoch_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Takes the epoch away."""
        self._epoch.close()

    def on_train_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Takes away what a stop within an epoch has left."""
        self._epoch.close()

    def on_exception(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, exception: BaseException
    ) -> None:
        """Gives the terminal back."""
        self._pass.close()
        self._epoch.close()

    def _open(self, what: str, batches: list[int | float]) -> None:
        """Shows a pass over cases."""
        self._began = time.monotonic()
        self._cases = self._pass.enter_context(track(what, int(sum(batches)), "batches"))

    def _close(self, part: str) -> None:
        """Takes it away, and notes how long it took."""
        self._pass.close()
        self.course.add_pass(part, time.monotonic() - self._began)

    def on_validation_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Shows a validation."""
        self._open("validation", trainer.num_val_batches)

    def on_test_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Shows a test."""
        self._open(self.test, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts a batch of cases."""
        self._cases.advance()

    def on_test_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts a batch of cases."""
        self._cases.advance()

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Takes the validation away."""
        self._close("val")

    def on_test_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Takes the test away."""
        self._close("test")
