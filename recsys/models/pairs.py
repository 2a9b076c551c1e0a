"""What architectures share that read a query and an item together, a score for each pair."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from recsys.encoders.padding import pad_texts, unpad_texts
from recsys.errors import ConfigError
from recsys.recommender.trainable import TrainableRecommender
from recsys.types import AskedText, Batch, ItemBatch, Ragged, Scored


class PairRecommender(TrainableRecommender, abc.ABC):
    """Base of what scores lists and no catalog; one adds `queries` and `score_pairs`.

    The representation of an item is its catalog row, and that of a query token ids, padded with -1.
    """

    ranks_catalog = False

    @abc.abstractmethod
    def score_pairs(
        self, queries: Tensor, rows: Tensor, valid: Tensor, epoch: int | None = None
    ) -> Tensor:
        """Scores (Q, C) of queries with items of their own, undefined where none is asked for.

        Args:
            queries: (Q, L) token ids.
            rows: (Q, C) catalog rows.
            valid: (Q, C) which pairs are asked for.
            epoch: Of training, whose texts may lack something; None: the whole texts.
        """

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def pad_queries(self, texts: Ragged) -> Tensor:
        """Token ids (Q, L) of texts, -1 at the end of the shorter ones, on this device."""
        return pad_texts(texts).to(self.device)

    @staticmethod
    def unpad_queries(queries: Tensor) -> Ragged:
        """The texts (Q texts) that `pad_queries` was given."""
        return unpad_texts(queries)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, L), (N,) rows -> (Q, N): every pair."""
        rows = items.expand(len(queries), -1)
        return self.score_pairs(queries, rows, torch.ones_like(rows, dtype=torch.bool))

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C): of the candidates, and of no other pair."""
        rows = items[batch.candidates.clamp(min=0)]
        with self.watch.time_stage("user"):
            queries = self.queries(batch, items)
        return self.score_pairs(queries, rows, batch.candidates >= 0, batch.plan.epoch)

    def check_single_history(self, asked: AskedText | None) -> None:
        """Refuses to look at the words of a text where a score is made of several.

        Args:
            asked: What is looked for in place of a history, or None.

        Raises:
            ConfigError: It is.
        """
        if asked is None and self.parts.masks is not None:
            raise ConfigError(
                "tokens=true: with data.augment.test_masks a score is the mean over masked copies "
                "of a history, which no single text makes; leave tokens= out, or give text=."
            )

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))
