"""The abstract recommender that trains: its steps, optimisers and evaluations; all final."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.data.batches.user_texts import UserTexts
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError, DataError
from recsys.losses import ObjectiveContext
from recsys.recommender.accumulation import AccumulationWindow, is_step_end
from recsys.recommender.base import Recommender
from recsys.recommender.components import TextComponents, TrainingComponents
from recsys.recommender.flops import FlopCounter
from recsys.recommender.optim import Named, make_divergence_error
from recsys.recommender.parameters import ENCODERS, TABLE, TrainableModule
from recsys.runs.result_file import BEFORE, ZERO_SHOT
from recsys.runtime.stopwatch import Stopwatch
from recsys.types import Batch, ItemBatch, Tuned, upload


class TrainableRecommender(Recommender, TrainableModule):
    """Base of every architecture that trains: a LightningModule.

    Attributes:
        starts_as_encoder: Whether all but the encoder changes nothing at first, so that the start
            is as good as the encoder.
        work: Counts what training reads and computes.
        watch: Takes the time of the stages; off by itself.
        window: The losses of the batches of the last optimiser step.
        validated: Metrics of the last validation in double precision; what Lightning logs is
            rounded to single.
    """

    starts_as_encoder = True
    parts: TrainingComponents

    def __init__(self, parts: TrainingComponents) -> None:
        super().__init__(parts)
        self.work, self.watch = FlopCounter(), Stopwatch(on=False)
        self.window = AccumulationWindow()
        self.validated: dict[str, float] = {}
        self._encoder = None if parts.encoding is None else parts.encoding.encoder
        self._around: ObjectiveContext | None = None
        self._kept: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where Lightning has put it."""
        return super(Recommender, self).device

    @property
    def tuned(self) -> Tuned | None:
        """What the tuning method did to the encoder, or None."""
        return None if self.parts.encoding is None else self.parts.encoding.tuned

    @property
    def l2_sp(self) -> float:
        """Strength of the pull towards the anchor (Li et al., ICML 2018)."""
        return self.parts.l2_sp

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters it has, and how many of them train; an item table is not counted."""
        own = [p.numel() for name, p in self.named_parameters() if not name.startswith(TABLE)]
        return sum(own), sum(p.numel() for p in self.get_saved_parameters().values())

    @property
    def train_loss(self) -> Tensor | None:
        """() loss of the last optimiser step's batches over all ranks, or None before one."""
        return self.window.loss

    @property
    def start(self) -> str:
        """What it is before the first step: the pretrained encoder as it is, or not."""
        untouched = self.tuned is not None and self.tuned.identical
        return ZERO_SHOT if untouched and self.starts_as_encoder else BEFORE

    @property
    def encoder(self) -> Encoder:
        """The encoder of an architecture that reads texts."""
        return self.encoding.encoder

    @property
    def encoding(self) -> TextComponents:
        """How an architecture that says it reads texts does so.

        Raises:
            ConfigError: Its `Config` says that it reads none.
        """
        if self.parts.encoding is None:
            raise ConfigError(
                f"{type(self).__module__} reads texts, and its Config has reads_tokens=False."
            )
        return self.parts.encoding

    @property
    def user_texts(self) -> UserTexts:
        """Users as one text each, for an architecture that says it reads them.

        Raises:
            ConfigError: Its `Config` says that it reads none.
        """
        if self.encoding.user_texts is None:
            raise ConfigError(
                f"{type(self).__module__} reads users' texts, and its Config has "
                "reads_user_texts=False."
            )
        return self.encoding.user_texts

    @final
    def encode_items(
        self,
        plan: ItemBatch,
        encoder: Encoder | None = None,
        prefix: FrozenLayerCache | None = None,
    ) -> Tensor:
        """(U, D) pooled texts of a plan's items, each encoded once.

        An encoder that does not train gives the same vectors for ever: they are kept between runs,
        or made for the whole catalog at the first call, and looked up from then on.

        Args:
            plan: The items.
            encoder: Another encoder than that of the items, or None.
            prefix: The kept states of that other encoder, or None.
        """
        if encoder is None and self.table is not None and self.training:
            looked_up: Tensor = self.table(plan.items)
            return looked_up
        if encoder is None:
            encoder, prefix = self.encoder, self.encoding.prefix
        if self.encoding.tuned.trained:
            self._count(plan, encoder, prefix)
            with self.watch.time_stage("encode"):
                return self._encode(plan.rows, encoder, prefix)
        # A second tower shares what does not train: its vectors are the same.
        if self.encoding.vectors is not None:
            return self.encoding.vectors.look_up(plan.items)
        if self._kept is None:
            with torch.no_grad():
                rows = torch.arange(len(self.parts.texts), device=self.device)
                blocks = [self._encode(part, encoder, None) for part in torch.split(rows, 1024)]
            self._kept = torch.cat(blocks)
        return self._kept[plan.items]

    def _count(self, plan: ItemBatch, encoder: Encoder, prefix: FrozenLayerCache | None) -> None:
        """Counts the texts of a plan, where training reads them."""
        if self.work.counting:
            sizes = plan.sizes or self.encoding.catalog.count_tokens(plan.rows)
            self.work.count_texts(encoder, prefix, encoder.compute_lengths(sizes))

    def _encode(self, rows: Tensor, encoder: Encoder, prefix: FrozenLayerCache | None) -> Tensor:
        """(U, D) pooled texts of catalog rows (U,)."""
        if prefix is not None:
            return prefix.compute_vectors(rows)
        vectors: Tensor = encoder(self.encoding.catalog.gather_tokens(rows.cpu(), self.device))
        return vectors

    def _encodes_catalog(self) -> bool:
        """Whether an encoder reads all items."""
        return self.parts.encoding is not None and self.parts.encoding.vectors is None

    # Training

    @final
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """This rank's share of the loss, which the window brings to the count of the whole step."""
        loss = self.parts.objective(self(batch), batch, self.get_objective_context())
        world, parts = self.trainer.world_size, self.trainer.accumulate_grad_batches
        sums = torch.stack([loss.total.detach().float(), loss.count.detach().float()])
        if world > 1:
            torch.distributed.all_reduce(sums)
        self.window.add(sums, batch_idx % parts == 0, is_step_end(self.trainer, batch_idx + 1))
        # DDP averages gradients over ranks and Lightning divides by the batches of a full window;
        # the factor turns both into a sum.
        mean = loss.total * (world * parts) / self.window.unit
        if not self.parts.l2_sp or not self.window.complete:
            return mean
        stepped = (name for named in self.get_stepped_roles().values() for name, _ in named)
        pull = self.compute_l2_sp(name for name in stepped if not name.startswith(TABLE)) * parts
        # It counts once a step, whatever the step's gradients are brought to.
        share = self.window.share
        return mean + (pull if share is None else pull / share)

    @final
    def on_after_backward(self) -> None:
        """Divides the gradients of a whole step by what its batches count together."""
        self.window.rescale(self.parameters())

    @final
    def get_objective_context(self) -> ObjectiveContext:
        """The world as the objective sees it, on this device; made at the first call."""
        if self._around is None:
            around = replace(self.parts.around(self._score_and_count), table=self._index_rows)
            self._around = around.to(self.device)
        return self._around

    @final
    def _index_rows(self, rows: Tensor) -> Tensor:
        """`index` of catalog rows (N,) that lie on the host, as an objective asks for it."""
        return self.index(ItemBatch(upload(rows, self.device), (), host=rows))

    @final
    def _score_and_count(self, queries: Tensor, items: Tensor) -> Tensor:
        """`score`, as an objective asks for it."""
        self.work.count_product(queries, items)
        return self.score(queries, items)

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
        return self.parts.optimise(roles, frozenset(own | flat), self.count_planned_steps())

    @final
    def count_planned_steps(self) -> int:
        """Optimiser steps that the schedule is laid out for: of the whole training, if not told.

        The Trainer's own estimate would begin to read the data before the counters of a run that
        goes on are restored.
        """
        if self.parts.schedule_steps is not None:
            return self.parts.schedule_steps
        trainer = self.trainer
        data: BatchLoaders = trainer.datamodule  # type: ignore[attr-defined]
        epochs = trainer.max_epochs or 1
        return data.count_steps(epochs, trainer.accumulate_grad_batches, trainer.max_steps)

    # Evaluation

    @final
    def on_validation_epoch_start(self) -> None:
        """Encodes the catalog."""
        self.evaluator.start(self, may_stop=self.trainer.global_step > 0)

    @final
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Ranks a batch of validation cases; no collective in here.

        Raises:
            DivergenceError: A score is NaN since training began.
        """
        try:
            self.evaluator.step(self, batch)
        except DataError as error:
            if not self.trainer.global_step:
                raise
            # The same cases could be ranked before the first step: training has done it.
            what = f"the validation cannot be ranked ({str(error).rstrip('.')})"
            raise make_divergence_error(
                what, self.trainer.global_step, self.trainer.optimizers
            ) from None

    @final
    def on_validation_epoch_end(self) -> None:
        """Logs the validation metrics."""
        self.validated = self.evaluator.end()
        self.log_dict({f"val/{k}": v for k, v in self.validated.items()}, logger=False)

    @final
    def on_test_epoch_start(self) -> None:
        """Encodes the catalog."""
        self.evaluator.start(self)

    @final
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Ranks a batch of test cases."""
        self.evaluator.step(self, batch)

    @final
    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self.log_dict({f"test/{k}": v for k, v in self.evaluator.end().items()}, logger=False)


def require_trainable(recommender: Recommender) -> TrainableRecommender:
    """The recommender of an architecture that says of itself that it trains.

    Raises:
        ConfigError: It is none that can.
    """
    if not isinstance(recommender, TrainableRecommender):
        raise ConfigError(
            f"{type(recommender).__module__}: its Config has trains=True and its Model is no "
            "TrainableRecommender; derive it from that (recsys.recommender.trainable)."
        )
    return recommender
