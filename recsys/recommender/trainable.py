"""The abstract recommender that trains: its steps, optimisers and evaluations; all final."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from recsys.data.batches.user_texts import UserTexts
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import MaskedAverage, Ranker
from recsys.losses import ObjectiveContext
from recsys.recommender.base import Recommender
from recsys.recommender.components import TextComponents, TrainingComponents
from recsys.recommender.optim import Optimise, make_divergence_error
from recsys.recommender.stepped import SteppedModule
from recsys.runs.result_file import BEFORE, ZERO_SHOT
from recsys.types import Batch, ItemBatch, Loss, Tuned, upload


class TrainableRecommender(Recommender, SteppedModule[Batch]):
    """Base of every architecture that trains: a LightningModule.

    Attributes:
        starts_as_encoder: Whether all but the encoder changes nothing at first, so that the start
            is as good as the encoder.
        starts_from_run: Whether it was given the weights of a finished run to start from.
    """

    starts_as_encoder = True
    starts_from_run: bool
    parts: TrainingComponents

    def __init__(self, parts: TrainingComponents) -> None:
        super().__init__(parts)
        self._encoder = None if parts.encoding is None else parts.encoding.encoder
        self._around: ObjectiveContext | None = None
        self._kept: Tensor | None = None
        self._epoch: int | None = None
        self.starts_from_run = False

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

    @property
    def optimise(self) -> Optimise:
        """Makes optimiser and schedule from parameters by role, names without decay, steps."""
        return self.parts.optimise

    @property
    def schedule_steps(self) -> int | None:
        """Steps that the schedule is laid out for; None for those that are trained."""
        return self.parts.schedule_steps

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters it has, and how many of them train; an item table is not counted."""
        return SteppedModule.count_parameters(self)

    @property
    def start(self) -> str:
        """What it is before the first step: the pretrained encoder as it is, or not."""
        untouched = self.tuned is not None and self.tuned.identical and not self.starts_from_run
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
                return self._encode(plan.rows, encoder, prefix, plan.epoch)
        if plan.epoch is not None:  # of these texts no vector is known
            with torch.no_grad(), self.watch.time_stage("encode"):
                self._count(plan, encoder, None)
                return self._encode(plan.rows, encoder, None, plan.epoch)
        # A second tower shares what does not train: its vectors are the same.
        if self.encoding.vectors is not None:
            return self.encoding.vectors.look_up(plan.items)
        if self.parts.origin is not None:  # never trained: of a few new items, not of all
            with torch.no_grad():
                return self._encode(plan.rows, encoder, None)
        if self._kept is None:
            with torch.no_grad():
                rows = torch.arange(len(self.parts.texts), device=self.device)
                blocks = [self._encode(part, encoder, None) for part in torch.split(rows, 1024)]
            self._kept = torch.cat(blocks)
        return self._kept[plan.items]

    def _count(self, plan: ItemBatch, encoder: Encoder, prefix: FrozenLayerCache | None) -> None:
        """Counts the texts of a plan, where training reads them."""
        if self.work.counting:
            sizes = plan.sizes or self.encoding.count_tokens(plan.rows, plan.epoch)
            self.work.count_texts(encoder, prefix, encoder.compute_lengths(sizes))

    def _encode(
        self,
        rows: Tensor,
        encoder: Encoder,
        prefix: FrozenLayerCache | None,
        epoch: int | None = None,
    ) -> Tensor:
        """(U, D) pooled texts of catalog rows (U,), as an epoch reads them or whole."""
        if prefix is not None:
            return prefix.compute_vectors(rows)
        vectors: Tensor = encoder(self.encoding.gather_tokens(rows.cpu(), epoch, self.device))
        return vectors

    def _encodes_catalog(self) -> bool:
        """Whether an encoder reads all items."""
        return self.parts.encoding is not None and self.parts.encoding.vectors is None

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Nothing: what it knows of the events has trained."""
        return {}

    # Training

    @final
    def compute_loss(self, batch: Batch) -> Loss:
        """The objective's loss of a batch, and what draws scores of cold items to their start."""
        self._epoch = batch.plan.epoch
        distils = self.parts.cold_distillation
        if distils is None:
            return self.parts.objective(self(batch), batch, self.get_objective_context())
        items = distils.draw_items(self.device)
        start = distils.compute_start_scores(self, batch, items, self._start)
        scored = self(batch)
        loss = self.parts.objective(scored, batch, self.get_objective_context())
        pull = distils.compute_pull(distils.compute_scores(self, scored, items), start, batch)
        return Loss(loss.total + pull * loss.count.detach(), loss.count)

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
        plan = ItemBatch(upload(rows, self.device), (), host=rows, epoch=self._epoch)
        return self.index(plan)

    @final
    def _score_and_count(self, queries: Tensor, items: Tensor) -> Tensor:
        """`score`, as an objective asks for it."""
        self.work.count_product(queries, items)
        return self.score(queries, items)

    # Evaluation

    @property
    def ranker(self) -> Ranker:
        """What ranks cases and answers queries with a history: over masked copies, if asked for."""
        masks = self.parts.masks
        return self if masks is None else MaskedAverage(self, masks)

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
            self.evaluator.step(self.ranker, batch)
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
        self._end_passes()
        self.validated = self.evaluator.end()
        self.log_dict({f"val/{k}": v for k, v in self.validated.items()}, logger=False)

    def _end_passes(self) -> None:
        """Takes part in the passes of processes that have more batches left than this one."""
        if self.passes is not None:
            self.passes.finish()

    @final
    def on_test_epoch_start(self) -> None:
        """Encodes the catalog."""
        self.evaluator.start(self)

    @final
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Ranks a batch of test cases."""
        self.evaluator.step(self.ranker, batch)

    @final
    def on_test_epoch_end(self) -> None:
        """Logs the test metrics."""
        self._end_passes()
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
