"""What trains in a pretraining: an encoder, and the heads of its task, by the steps of any run."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from recsys.encoders.encoder import Encoder
from recsys.errors import DataError
from recsys.pretrain.tasks.base import Task
from recsys.recommender.optim import Optimise
from recsys.recommender.stepped import SteppedModule
from recsys.types import Loss, TextBatch, Tuned

LOSS = "loss"
"""Name of what a validation measures."""


class PretrainingModule(SteppedModule[TextBatch]):
    """An encoder with the task that it is trained on.

    Args:
        encoder: The tuned encoder.
        tuned: What the tuning method did.
        task: What it learns by.
        optimise: Makes optimiser and schedule.
        l2_sp: Strength of the pull towards the anchor.
        schedule_steps: Steps that the schedule is laid out for; None for those that are trained.
    """

    def __init__(
        self,
        encoder: Encoder,
        tuned: Tuned,
        task: Task,
        optimise: Optimise,
        l2_sp: float,
        schedule_steps: int | None,
    ) -> None:
        super().__init__()
        self._encoder, self.task = encoder, task
        self._tuned, self._optimise, self._l2_sp = tuned, optimise, l2_sp
        self._schedule_steps = schedule_steps
        self._held = torch.zeros(2, dtype=torch.float64)

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self._encoder

    @property
    def tuned(self) -> Tuned:
        """What the tuning method did to the encoder."""
        return self._tuned

    @property
    def l2_sp(self) -> float:
        """Strength of the pull towards the anchor (Li et al., ICML 2018)."""
        return self._l2_sp

    @property
    def optimise(self) -> Optimise:
        """Makes optimiser and schedule from parameters by role, names without decay, steps."""
        return self._optimise

    @property
    def schedule_steps(self) -> int | None:
        """Steps that the schedule is laid out for; None for those that are trained."""
        return self._schedule_steps

    @final
    def compute_loss(self, batch: TextBatch) -> Loss:
        """The task's loss of a batch."""
        return self.task.compute_loss(self._encoder, batch, self.work)

    @final
    def on_validation_epoch_start(self) -> None:
        """Begins to add up."""
        self._held = torch.zeros(2, dtype=torch.float64)

    @final
    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Adds the loss of a batch that is held out."""
        loss = self.compute_loss(batch)
        sums: Tensor = torch.stack([loss.total.double(), loss.count.double()])
        self._held = self._held + sums.cpu()

    @final
    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss of what is held out.

        Raises:
            DataError: Nothing of it counts.
        """
        total, count = self._held.tolist()
        if not count:
            raise DataError(
                "what is held out of the pretraining has nothing to be told from, so that its loss "
                "has no value; raise pretraining.val_share or trainer.batch_size."
            )
        self.validated = {LOSS: total / count}
        self.log(f"val/{LOSS}", self.validated[LOSS], logger=False)
