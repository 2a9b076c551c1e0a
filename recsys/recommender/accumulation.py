"""The batches of one optimiser step: one sum of losses over one count, however it is cut."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as lp
import torch
from torch import Tensor, nn


def is_step_end(trainer: lp.Trainer, batches: int) -> bool:
    """Whether an optimiser step ends with the epoch's first so many batches."""
    return batches % trainer.accumulate_grad_batches == 0 or batches == trainer.num_training_batches


class AccumulationWindow:
    """What the batches of an optimiser step have added up to so far, over all ranks.

    The step is that of one batch with all their queries: the sum of their losses over the count of
    them all. How many count is known only when the last batch has been scored, and on the device
    alone. So each loss is divided by the count of the first batch, which keeps gradients near
    those of a mean (fp16 has no room for those of a sum), and the gradients are brought to the
    whole count after the last backward pass. Nothing of it outlives a step, so that a run which
    goes on after whole steps has nothing to restore.

    Attributes:
        sums: (2,) float32 sum of the losses and how many were counted; None before a batch.
        complete: Whether the last batch that was taken ends its step.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.complete = False
        self._unit: Tensor | None = None
        self._parts = 0

    def add(self, sums: Tensor, begins: bool, ends: bool) -> None:
        """Takes a batch.

        Args:
            sums: (2,) sum of its losses over all ranks, and how many were counted.
            begins: Whether it is the first of its step.
            ends: Whether it is the last of it.
        """
        self.complete = ends
        if begins or self.sums is None:
            self.sums, self._unit, self._parts = sums, _clamp_count(sums[1]), 1
        else:
            self.sums, self._parts = self.sums + sums, self._parts + 1

    @property
    def loss(self) -> Tensor | None:
        """() mean loss of what was counted so far, or None before a batch."""
        return None if self.sums is None else self.sums[0] / _clamp_count(self.sums[1])

    @property
    def unit(self) -> Tensor:
        """() what each loss of this step is divided by before its backward pass.

        Raises:
            RuntimeError: No batch was taken.
        """
        if self._unit is None:
            raise RuntimeError("a loss is divided before it was counted")
        return self._unit

    @property
    def share(self) -> Tensor | None:
        """() what brings the gradients to the count of all batches; None where that is 1.

        One batch has it by itself: its gradients stay as they are, to the bit.
        """
        if self.sums is None or self._parts == 1:
            return None
        return self.unit / _clamp_count(self.sums[1])

    @torch.no_grad()
    def rescale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Brings gradients to the count of all batches, where the last one has been through."""
        share = self.share if self.complete else None
        if share is None:
            return
        if gradients := [p.grad for p in parameters if p.grad is not None]:
            torch._foreach_mul_(gradients, share)


def _clamp_count(count: Tensor) -> Tensor:
    """() the count, or 1 where nothing counts: the sum is 0 then."""
    return torch.where(count > 0, count, torch.ones_like(count))
