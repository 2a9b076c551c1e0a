"""The item table: item vectors train as a table, and the encoder follows them every so often.

After GRAM (Yang et al., GRAM: Fast Fine-tuning of Pre-trained Language Models for Content-based
Collaborative Filtering, NAACL 2022), which also lets several steps share one pass of the item
encoder. There the gradient on the item vectors is added up and passed to the encoder once; here the
vectors themselves move, by an optimiser step for each batch, and the encoder is distilled towards
them, which gives it many steps where a sum of gradients gives it one.
"""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as lp
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from recsys.recommender.stepped import is_step_end
from recsys.recommender.trainable import TrainableRecommender
from recsys.training.phases import count_phase_steps
from recsys.types import Batch, ItemBatch


class ItemTable(nn.Module):
    """One vector an item: what the encoder gave, and how far training has moved it since.

    The move is a parameter in units of a typical entry of the vectors (their root mean square), so
    that a learning rate means the same for every encoder, and weight decay pulls towards the
    encoder's vector.

    Args:
        items: I, items of the catalog.
        width: D, width of a vector.

    Attributes:
        moved: (I, D) the moves; zero after each `refresh`.
        base: (I, D) what the encoder gave.
        scale: () the unit of the moves.
    """

    base: Tensor
    scale: Tensor

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.moved = nn.Parameter(torch.zeros(items, width))
        self.register_buffer("base", torch.zeros(items, width), persistent=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(U, D) vectors of catalog rows (U,)."""
        return self.base[rows] + self.scale * self.moved[rows]

    @torch.no_grad()
    def set_base(self, vectors: Tensor) -> None:
        """Takes the encoder's vectors (I, D) and leaves the moves."""
        self.base.copy_(vectors)
        self.scale.copy_(self.base.square().mean().sqrt())

    @torch.no_grad()
    def refresh(self, vectors: Tensor) -> None:
        """Begins again from the encoder's vectors (I, D)."""
        self.set_base(vectors)
        self.moved.zero_()

    @torch.no_grad()
    def find_moved(self) -> Tensor:
        """Catalog rows that have moved, in order."""
        return self.moved.any(dim=1).nonzero()[:, 0]


@torch.no_grad()
def encode_all_items(recommender: TrainableRecommender, block: int = 1024) -> Tensor:
    """(I, D) vectors of all items from the encoder, in evaluation mode, a block at a time."""
    was = recommender.training
    recommender.eval()
    rows = torch.arange(len(recommender.parts.texts), device=recommender.device)
    out = [recommender.encode_items(ItemBatch(part, ())) for part in torch.split(rows, block)]
    recommender.train(was)
    return torch.cat(out).float()


class ItemTableDistillation(Callback):
    """Trains with an item table and brings the encoder after it at the end of each phase.

    A phase ends after so many optimiser steps and with each epoch, before its validation:
    validation, the best checkpoint and the test always see the encoder. Then one pass over the
    items that have moved, in whole micro-batches of similar length and in random order, takes
    AdamW steps on the squared distance between the encoder's vectors and the table's. Their
    learning rates are those of the roles in the main optimiser, at the schedule's mean over the
    phase. Dropout is off: the table's vectors were made without it, and its noise is larger than
    what there is to learn. At the end the whole table is made anew, as every vector has changed
    with the encoder.

    Args:
        updates: half_epoch or a number of optimiser steps.
        least: Items of a distillation step at least, as far as there are so many.
        clip: Largest norm of its gradient; 0 for no clipping.
        seed: Of the run.
    """

    def __init__(self, updates: str, least: int, clip: float, seed: int) -> None:
        self.updates, self.least, self.clip, self.seed = updates, least, clip, seed
        self._began = 0
        self._loaded: dict[str, Any] | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._schedule: Any = None
        self._table: ItemTable | None = None

    @property
    def table(self) -> ItemTable:
        """The table, which is there from `setup` on."""
        if self._table is None:
            raise RuntimeError("there is no item table before the training is set up")
        return self._table

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The encoder's optimiser, which is there from `on_fit_start` on."""
        if self._optimizer is None:
            raise RuntimeError("the encoder has no optimiser before the training begins")
        return self._optimizer

    def setup(self, trainer: lp.Trainer, pl_module: lp.LightningModule, stage: str) -> None:
        """Gives the recommender its table, still without vectors."""
        if stage == "fit" and isinstance(pl_module, TrainableRecommender):
            self._table = ItemTable(len(pl_module.parts.texts), pl_module.encoder.vector_width)
            pl_module.table = self._table

    def on_fit_start(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Fills the table, or takes up what a stopped run had."""
        model = cast(TrainableRecommender, pl_module)
        self._optimizer, self._schedule = model.make_optimizer(model.get_distilled_roles())
        if self._loaded is None:
            with trainer.precision_plugin.train_step_context():
                self.table.refresh(encode_all_items(model))
            return
        self.optimizer.load_state_dict(self._loaded["optimizer"])
        self.table.set_base(self._loaded["base"])  # the moves are in the recommender's own state
        self._began, self._loaded = self._loaded["began"], None

    @property
    def state_key(self) -> str:
        """Its name in a saved state, which is part of the format."""
        return "Distill"

    def state_dict(self) -> dict[str, Any]:
        """The encoder's optimiser, the table's base and when the phase began."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "base": self.table.base,
            "began": self._began,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps it until the encoder has its optimiser."""
        self._loaded = state_dict

    def on_train_batch_end(
        self,
        trainer: lp.Trainer,
        pl_module: lp.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Ends a phase where one is due."""
        done, step = batch_idx + 1, trainer.global_step
        if not is_step_end(trainer, done):
            return
        # Lightning counts the batches of an epoch as a float, for those without an end.
        batches = int(trainer.num_training_batches)
        length = count_phase_steps(self.updates, -(-batches // trainer.accumulate_grad_batches))
        ends = done == batches or 0 <= trainer.max_steps <= step
        if ends or step - self._began >= length:
            self._end_phase(trainer, cast(TrainableRecommender, pl_module))

    def _end_phase(self, trainer: lp.Trainer, model: TrainableRecommender) -> None:
        rows = self.table.find_moved()
        wanted = self.table(rows).detach()
        before = self.table.moved.detach()[rows].square().sum()
        scale = self.table.scale.clone()
        self._set_rates(trainer.global_step)
        was = model.training
        model.eval()
        self._distill(trainer, model, rows)
        model.train(was)
        with trainer.precision_plugin.train_step_context():
            self.table.refresh(encode_all_items(model))
        self._reset_momentum(trainer.optimizers[0])
        self._began = trainer.global_step
        left = ((self.table.base[rows] - wanted) / scale).square().sum()
        row = {
            "table/moved": float((before / max(1, wanted.numel())).sqrt()),
            "table/left": float((left / max(1, wanted.numel())).sqrt()),
            "table/items": float(len(rows)),
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, trainer.global_step)

    def _set_rates(self, step: int) -> None:
        """The schedule's mean over the steps of the phase that ends at `step`."""
        steps = range(self._began, step)
        for group, factor in zip(
            self.optimizer.param_groups, self._schedule.lr_lambdas, strict=True
        ):
            group["lr"] = group["initial_lr"] * sum(map(factor, steps)) / max(1, len(steps))

    def _distill(self, trainer: lp.Trainer, model: TrainableRecommender, rows: Tensor) -> None:
        """One pass over rows (N,): squared error in units of the table, a mean over items."""
        named = [pair for part in model.get_distilled_roles().values() for pair in part]
        for parts in self._plan_steps(model, rows, trainer.global_step):
            count = sum(len(part) for part in parts)
            for part in parts:
                with trainer.precision_plugin.train_step_context():
                    vectors = model.encode_items(ItemBatch(part, ()))
                error = (vectors.float() - self.table(part).detach()) / self.table.scale
                with model.watch.time_stage("backward"):
                    torch.autograd.backward(error.square().sum() / count)
            with model.watch.time_stage("optimiser"):
                if model.parts.l2_sp:
                    torch.autograd.backward(model.compute_l2_sp(name for name, _ in named))
                if self.clip:
                    nn.utils.clip_grad_norm_([p for _, p in named], self.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

    def _plan_steps(
        self, model: TrainableRecommender, rows: Tensor, step: int
    ) -> list[list[Tensor]]:
        """Whole micro-batches in random order, so many to a step that it has enough items."""
        lengths = model.encoder.compute_lengths(model.encoding.catalog.count_tokens(rows.cpu()))
        parts = [rows[list(part)] for part in model.encoder.plan_micro_batches(lengths)]
        seed = np.random.SeedSequence([self.seed, step]).generate_state(1)[0]
        order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(int(seed)))
        out: list[list[Tensor]] = []
        size = self.least
        for i in order.tolist():
            if size >= self.least:
                out.append([])
                size = 0
            out[-1].append(parts[i])
            size += len(parts[i])
        return out

    def _reset_momentum(self, optimizer: torch.optim.Optimizer) -> None:
        """Ends the table's momentum with the phase; the size of its gradients is still known.

        Else rows that no step reads would go on moving, and each phase would distil them all.
        """
        state = optimizer.state.get(self.table.moved)
        if state is not None:
            state["exp_avg"].zero_()
