"""The floor of every table: items by how often training shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recsys.recommender import Parts, Recommender
from recsys.types import Batch, ItemBatch, Scored


@dataclass
class Config:
    """Popularity has no options."""

    gives: ClassVar[frozenset[str]] = frozenset()
    trains: ClassVar[bool] = False
    reads_user_texts: ClassVar[bool] = False
    reads_item_vectors: ClassVar[bool] = False


class Model(Recommender):
    """The same ranking for everyone; it needs no encoder and no training."""

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(parts)

    def index(self, plan: ItemBatch) -> Tensor:
        """Training counts of the items, (U, 1)."""
        return self.parts.counts.to(plan.items.device)[plan.items].float()[:, None]

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Ones, (Q, 1)."""
        return torch.ones(len(batch.query), 1, device=items.device)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, 1), (N, 1) -> (Q, N)."""
        return queries @ items.T

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.index(batch.plan)[:, 0][batch.candidates.clamp(min=0)])
