"""A module that trains by steps: one loss over all batches and ranks of a step, and its optimiser.

What is trained is left to who derives from it: a recommender, or an encoder on its own.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, final

import lightning.pytorch as lp
import torch
from torch import Tensor, nn

from recsys.data.batches.batching import PlannedBatches
from recsys.encoders.sharded.tensors import compute_norm, is_sharded, take_local
from recsys.encoders.weights.quantized import count_parameters
from recsys.recommender.flops import FlopCounter
from recsys.recommender.optim import Named, Optimise
from recsys.recommender.parameters import ENCODERS, TABLE, TrainableModule
from recsys.runtime.stopwatch import Stopwatch
from recsys.types import Loss

B = TypeVar("B")


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
        if gradients := [take_local(p.grad) for p in parameters if p.grad is not None]:
            torch._foreach_mul_(gradients, share)


def _clamp_count(count: Tensor) -> Tensor:
    """() the count, or 1 where nothing counts: the sum is 0 then."""
    return torch.where(count > 0, count, torch.ones_like(count))


class SteppedModule(TrainableModule, Generic[B]):
    """Base of a module that trains on batches of a kind.

    Attributes:
        work: Counts what training reads and computes.
        watch: Takes the time of the stages; off by itself.
        window: The losses of the batches of the last optimiser step.
        validated: Metrics of the last validation in double precision; what Lightning logs is
            rounded to single.
    """

    def __init__(self) -> None:
        super().__init__()
        self.work, self.watch = FlopCounter(), Stopwatch(on=False)
        self.window = AccumulationWindow()
        self.validated: dict[str, float] = {}

    @property
    @abc.abstractmethod
    def optimise(self) -> Optimise:
        """Makes optimiser and schedule from parameters by role, names without decay, steps."""

    @property
    @abc.abstractmethod
    def schedule_steps(self) -> int | None:
        """Steps that the schedule is laid out for; None for those that are trained."""

    @abc.abstractmethod
    def compute_loss(self, batch: B) -> Loss:
        """The loss of a batch, as a sum and a count."""

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters it has, and how many of them train; an item table is not counted."""
        table = sum(p.numel() for name, p in self.named_parameters() if name.startswith(TABLE))
        trained = sum(p.numel() for p in self.get_saved_parameters().values())
        return count_parameters(self) - table, trained

    @property
    def train_loss(self) -> Tensor | None:
        """() loss of the last optimiser step's batches over all ranks, or None before one."""
        return self.window.loss

    @final
    def training_step(self, batch: B, batch_idx: int) -> Tensor:
        """This rank's share of the loss, which the window brings to the count of the whole step."""
        loss = self._finish_passes(self.compute_loss(batch))
        world, parts = self.trainer.world_size, self.trainer.accumulate_grad_batches
        sums = torch.stack([loss.total.detach().float(), loss.count.detach().float()])
        if world > 1:
            torch.distributed.all_reduce(sums)
        self.window.add(sums, batch_idx % parts == 0, is_step_end(self.trainer, batch_idx + 1))
        # DDP averages gradients over ranks and Lightning divides by the batches of a full window;
        # the factor turns both into a sum.
        mean = loss.total * (world * parts) / self.window.unit
        if not self.l2_sp or not self.window.complete or self.passes is not None:
            return mean
        stepped = (name for named in self.get_stepped_roles().values() for name, _ in named)
        pull = self.compute_l2_sp(name for name in stepped if not name.startswith(TABLE)) * parts
        # It counts once a step, whatever the step's gradients are brought to.
        share = self.window.share
        return mean + (pull if share is None else pull / share)

    @final
    def on_after_backward(self) -> None:
        """Divides the gradients of a whole step by what its batches count together."""
        if self.passes is not None and self.window.complete:
            self._share_gradients()
        self.window.rescale(self.parameters())
        if self.passes is not None and self.window.complete and self.l2_sp:
            self._add_l2_sp()

    def _finish_passes(self, loss: Loss) -> Loss:
        """The loss, after the passes that other processes still need of spread weights."""
        if self.passes is None:
            return loss
        more = self.passes.finish()
        return loss if more is None else Loss(loss.total + more, loss.count)

    @torch.no_grad()
    def _share_gradients(self) -> None:
        """Averages the gradients of what is whole on every process, as DDP does.

        Those of spread weights are averaged where they are put together.
        """
        whole = [p for p in self.get_trained_parameters().values() if not is_sharded(p)]
        for p in whole:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            torch.distributed.all_reduce(p.grad)
            p.grad.div_(torch.distributed.get_world_size())

    @torch.no_grad()
    def _add_l2_sp(self) -> None:
        """Adds the gradient of `compute_l2_sp`, each process to its part of the weights."""
        own = self.get_trained_parameters()
        zero = self.list_zero_anchors()
        for name in (name for named in self.get_stepped_roles().values() for name, _ in named):
            p = own[name]
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            pull = take_local(p)
            if name not in zero:
                pull = pull - take_local(self._start[name])
            take_local(p.grad).add_(pull, alpha=self.l2_sp)

    @final
    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm over all gradients, spread or not."""
        if self.passes is None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if not gradient_clip_val:
            return
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        scale = (gradient_clip_val / (compute_norm(gradients) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            take_local(gradient).mul_(scale)

    @final
    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's own loose type)
        """AdamW by role and its schedule, stepped once an optimiser step."""
        optimizer, scheduler = self.make_optimizer(self.get_stepped_roles())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @final
    def make_optimizer(self, roles: Mapping[str, Named]) -> tuple[Any, Any]:
        """AdamW of some parameters by role, and its schedule over the whole training."""
        tuned = self.tuned
        own = {f"{e}{n}" for e in ENCODERS for n in tuned.no_decay} if tuned else set()
        flat = {
            k for k, p in self.get_trained_parameters().items() if p.ndim < 2 or "norm" in k.lower()
        }
        return self.optimise(roles, frozenset(own | flat), self.count_planned_steps())

    @final
    def count_planned_steps(self) -> int:
        """Optimiser steps that the schedule is laid out for: of the whole training, if not told.

        The Trainer's own estimate would begin to read the data before the counters of a run that
        goes on are restored.
        """
        if self.schedule_steps is not None:
            return self.schedule_steps
        trainer = self.trainer
        data: PlannedBatches = trainer.datamodule  # type: ignore[attr-defined]
        epochs = trainer.max_epochs or 1
        return data.count_steps(epochs, trainer.accumulate_grad_batches, trainer.max_steps)
