"""What a run costs: texts, tokens and operations of its training, counted in every run."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import lightning.pytorch as lp
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from recsys.encoders.layers import LINEAR, count_passes, find_layer_stack
from recsys.errors import ConfigError
from recsys.recommender.flops import find_heads
from recsys.recommender.parameters import ENCODERS
from recsys.recommender.stepped import SteppedModule
from recsys.recommender.training_counts import TrainingCounts
from recsys.types import Batch

COUNTS = "counts"
"""Key of a checkpoint: what training had read and computed by then, over all ranks."""


class CostMeter(Callback):
    """Counts what training reads and computes, over all stops and ranks.

    The counts lie in the checkpoint to go on from, so that a stopped run counts as one that was
    not stopped: steps that were lost are not in them.

    Args:
        full: Whether also to count what only a profile tells, which may wait for the device.
    """

    def __init__(self, full: bool) -> None:
        self.full = full
        self._before = TrainingCounts()
        self._own = TrainingCounts()
        self._model: SteppedModule[Any] | None = None
        self._device = torch.device("cpu")
        self._handles: list[RemovableHandle] = []

    def compute_total(self) -> TrainingCounts:
        """Over all stops and ranks; every rank must call it."""
        own = self._own
        if self._model is not None:
            work = self._model.work
            own = own.add(TrainingCounts(texts=work.texts, tokens=work.tokens, flops=work.flops))
        return self._before.add(own.sum_over_ranks(self._device))

    def on_fit_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Listens to the linear maps."""
        if not isinstance(pl_module, SteppedModule):
            return
        self._model, self._device = pl_module, trainer.strategy.root_device
        for module in find_heads(pl_module, ENCODERS):
            self._handles.append(module.register_forward_hook(pl_module.work.count_linear))
        for encoder in _find_encoders(pl_module) if self.full else ():
            # The last layer always runs, and its first map sees every position once.
            stack = find_layer_stack(encoder)[1]
            first = next(m for m in stack[-1].modules() if isinstance(m, LINEAR))
            # ... a pass: a layer that is used again sees them as often.
            places = partial(self._count_positions, count_passes(encoder) // len(stack))
            self._handles.append(first.register_forward_hook(places))

    def _count_positions(
        self, times: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
    ) -> None:
        x, model = args[0], self._model
        if model is not None and model.work.counting:
            self._own.positions += x.numel() / x.shape[-1] / times

    def on_train_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Begins to count."""
        self._set_counting(True)

    def on_before_backward(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, loss: Tensor
    ) -> None:
        """Does not count what backward computes a second time."""
        self._set_counting(False)

    def on_after_backward(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Goes on to count."""
        self._set_counting(True)

    def on_validation_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Does not count a validation."""
        self._set_counting(False)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Goes on to count."""
        self._set_counting(trainer.state.fn == "fit")

    def on_train_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Ends the count."""
        self._set_counting(False)

    def _set_counting(self, counting: bool) -> None:
        if self._model is not None:
            self._model.work.counting = counting

    def on_train_batch_start(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Counts how often the items of a batch stand in it."""
        if self.full:
            places = (batch.history >= 0).sum() + (batch.candidates >= 0).sum()
            self._own.references += int(places)
            self._own.unique += len(batch.plan.items)

    def teardown(self, trainer: lp.Trainer, pl_module: lp.LightningModule, stage: str) -> None:
        """Leaves the linear maps as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def on_save_checkpoint(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the counts; on every rank."""
        checkpoint[COUNTS] = asdict(self.compute_total())

    def on_load_checkpoint(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on from the counts.

        Raises:
            ConfigError: There are none.
        """
        if COUNTS not in checkpoint:
            raise ConfigError(
                "the saved state was written by another version of recsys; begin a new run."
            )
        self._before = TrainingCounts(**checkpoint[COUNTS])


def _find_encoders(model: SteppedModule[Any]) -> list[nn.Module]:
    """The transformers models of a recommender's encoders."""
    named = dict(model.named_modules())
    names = [f"{encoder}model" for encoder in ENCODERS]
    return [named[name] for name in names if name in named]
