"""The items of a history again, as a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from recsys.architectures.copying import Config
from recsys.layers.baselines import gather_history_rows
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components
from recsys.types import Batch, ItemBatch, Scored, ScoreSplit


class Model(Recommender):
    """Items of the history by how late they came, from 1 to 2; all others by their events, below 1.

    Half and more of what published systems of conversation get right are items that the dialogue
    had named before (He et al., CIKM 2023, section 4): this is what needs no model for that.
    """

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Nothing: how often items are taken is all that it knows."""
        return {}

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H), (N,) rows -> (Q, N)."""
        rows, known = items.to(queries.device), queries >= 0
        scores = self._weigh_popularity().to(queries.device).repeat(len(queries), 1)
        # 1 + 1 / steps from the end; written in time order, so that the latest mention counts
        steps = known.sum(1, keepdim=True) - torch.arange(queries.shape[1], device=queries.device)
        for column in range(queries.shape[1]):
            at = known[:, column].nonzero()[:, 0]
            scores[at, queries[at, column]] = 1 + 1 / steps[at, column].float()
        return scores[:, rows]

    def _weigh_popularity(self) -> Tensor:
        """(I,) shares below 1."""
        popular = self.get_popularity()
        return popular / (popular.max() + 1)

    def split_scores(self, batch: Batch, rows: Tensor, catalog: Tensor | None = None) -> ScoreSplit:
        """Scores of one query: what an item of the history adds to itself, and what is popular."""
        own = batch.plan.items
        popular = self._weigh_popularity()[rows]
        copied = self.score(self.queries(batch, own), rows)[0] - popular
        return ScoreSplit(copied[:, None] * (rows[:, None] == own), {"popularity": popular})

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))
