"""What watches a training: best checkpoint, log and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as lp
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from recsys.data.batches.batching import PlannedBatches
from recsys.encoders.sharded.tensors import compute_norm, sum_over_shards, take_local
from recsys.errors import ConfigError
from recsys.recommender.optim import make_divergence_error
from recsys.recommender.stepped import SteppedModule, is_step_end
from recsys.runs.validation_log import compute_epochs
from recsys.types import Batch


def _make_zero_sums() -> Tensor:
    """(2,) sum and count of no losses."""
    return torch.zeros(2, dtype=torch.float64)


ROWS = 10
"""Steps between two rows of the log where nothing else is asked for, and the least of its rows."""


class TrainingLog(Callback):
    """Logs loss, learning rate, gradient norm and distance from the start by role.

    Rows are written here and not by the Trainer: it would write the row of a step only after the
    callbacks have seen it, and lose it where a run is stopped there; and it counts the validation
    after an epoch as a step before the last one. Their step is the number of optimiser steps done.
    A validation's row also has the seconds trained until then, validations not counted.

    A loss or a parameter that is not finite ends the run. It is asked for only where a row is
    written or a validation begins: asking in every step would wait for the device.

    Args:
        every: Optimiser steps between two rows; None: ten, or a tenth of them all if that is less.
        seconds: Tells the time trained so far.

    Attributes:
        distance: Euclidean distance from the start by role, when training has ended.
    """

    def __init__(self, every: int | None, seconds: Callable[[], float]) -> None:
        self.every, self.seconds = every or ROWS, seconds
        self._adapts = every is None
        self.distance: dict[str, float] = {}
        self._row: dict[str, Tensor] = {}
        # Sum and count of the losses of the last whole epoch and of what came after it; they stay
        # on the losses' device.
        self._whole, self._since = _make_zero_sums(), _make_zero_sums()

    def compute_loss(self) -> float | None:
        """Mean of all losses counted in the last epoch, or None where nothing was trained.

        A training that ends within an epoch has the whole one before it counted as well.
        """
        total, count = (self._whole.cpu() + self._since.cpu()).tolist()
        return float(total) / count if count else None

    @property
    def state_key(self) -> str:
        """Its name in a saved state, which is part of the format."""
        return "Watch"

    def state_dict(self) -> dict[str, Any]:
        """The sums behind `compute_loss`, and the distances."""
        return {
            "loss_sums": [sums.tolist() for sums in (self._whole, self._since)],
            "distance": self.distance,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave.

        Raises:
            ConfigError: An older version wrote it.
        """
        if "loss_sums" not in state_dict:
            raise ConfigError(
                "the state to go on from is of another version of recsys; start a new run."
            )
        self._whole, self._since = (
            torch.tensor(sums, dtype=torch.float64) for sums in state_dict["loss_sums"]
        )
        self.distance = state_dict["distance"]

    def on_train_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Has a short training leave a curve, too."""
        steps = trainer.estimated_stepping_batches
        if self._adapts and math.isfinite(steps):
            self.every = max(1, min(ROWS, int(steps) // ROWS))

    def on_before_optimizer_step(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Takes the learning rates and the gradient norms, which are not clipped yet."""
        if (trainer.global_step + 1) % self.every or not isinstance(pl_module, SteppedModule):
            return
        # Groups of a role differ in decay only.
        self._row = {
            f"lr/{group['name'].partition('/')[0]}": torch.tensor(group["lr"])
            for group in optimizer.param_groups
        }
        for role, named in pl_module.group_by_role().items():
            gradients = [p.grad for _, p in named if p.grad is not None]
            if gradients and pl_module.passes is not None:
                self._row[f"grad_norm/{role}"] = compute_norm(gradients)
                continue
            norms = [gradient.float().norm() for gradient in gradients]
            if norms:
                self._row[f"grad_norm/{role}"] = torch.stack(norms).norm()

    def on_train_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Writes a row after every so many whole steps.

        Raises:
            DivergenceError: The loss is not finite.
        """
        if not isinstance(pl_module, SteppedModule) or not is_step_end(trainer, batch_idx + 1):
            return
        sums, step_loss = pl_module.window.sums, pl_module.train_loss
        if sums is None or step_loss is None:
            return
        self._since = self._since.to(sums.device) + sums.double()
        if batch_idx + 1 == trainer.num_training_batches:
            self._whole, self._since = self._since, _make_zero_sums()
        spread = pl_module.passes is not None  # what each process has a part of, all add up
        if trainer.global_step % self.every or not (trainer.is_global_zero or spread):
            return
        distances = pl_module.compute_distances()
        if not trainer.is_global_zero:
            return
        row = {"train/loss": step_loss, **self._row}
        row |= {f"distance/{role}": value for role, value in distances.items()}
        self._write(trainer, row)
        loss = float(row["train/loss"])
        if not math.isfinite(loss):
            # The loss of the first step is that of the start.
            raise make_divergence_error(
                f"the loss is {loss}",
                trainer.global_step,
                trainer.optimizers,
                trained=trainer.global_step > 1,
            )

    def on_train_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Measures how far training has come from its start."""
        if isinstance(pl_module, SteppedModule):
            self.distance = {k: float(value) for k, value in pl_module.compute_distances().items()}

    def on_validation_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Refuses to validate what cannot be ranked by.

        Raises:
            DivergenceError: The loss or a parameter is not finite.
        """
        if (
            trainer.global_step
            and isinstance(pl_module, SteppedModule)
            and not is_finite(pl_module)
        ):
            raise make_divergence_error(NOT_FINITE, trainer.global_step, trainer.optimizers)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Writes the validation metrics."""
        self._write_part(trainer, "val/", {"seconds": torch.tensor(self.seconds())})

    def on_test_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Writes the test metrics."""
        self._write_part(trainer, "test/", {})

    def _write_part(self, trainer: lp.Trainer, prefix: str, more: Mapping[str, Tensor]) -> None:
        found = trainer.callback_metrics.items()
        row = {name: value for name, value in found if name.startswith(prefix)}
        self._write(trainer, {**row, **more})

    def _write(self, trainer: lp.Trainer, row: Mapping[str, Tensor]) -> None:
        values = {name: float(value) for name, value in row.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)


NOT_FINITE = "the loss or a trained parameter is not finite"


@torch.no_grad()
def is_finite(recommender: SteppedModule[Any]) -> bool:
    """Whether the last loss and all trained parameters are finite; waits for the device."""
    loss, trained = recommender.train_loss, recommender.get_trained_parameters().values()
    # One number a parameter: infinities of both signs sum to NaN.
    sums = [take_local(parameter).float().sum() for parameter in trained]
    fine = not sums or bool(sum_over_shards(list(trained), sums).isfinite().all())
    return fine and (loss is None or bool(loss.isfinite()))


def count_trained_epochs(trainer: lp.Trainer) -> float:
    """Passes over the training queries until now, with fractions, over all stops."""
    data: PlannedBatches = trainer.datamodule  # type: ignore[attr-defined]
    return compute_epochs(data.plan, trainer.fit_loop.epoch_loop.batch_progress.total.ready)
