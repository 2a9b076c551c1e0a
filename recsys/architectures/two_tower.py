"""Two towers: items from their texts, the user from the history's item vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import option
from recsys.recommender import Parts, Recommender
from recsys.types import Batch, ItemBatch, Scored


@dataclass
class Config:
    """Options of the two towers."""

    gives: ClassVar[frozenset[str]] = frozenset({"queries", "scores"})
    trains: ClassVar[bool] = True

    history: Literal["mean", "recency", "attention"] = option(
        "recency", "how a history's item vectors become the user's"
    )
    score: Literal["cosine", "dot"] = option(
        "cosine", "cosine with a learned temperature, or the plain dot product"
    )
    temperature: float = option(0.05, "of the cosine at the start")
    recency: float = option(0.3, "decay a step back in the history, at the start")
    heads: bool = option(True, "residual heads on item and user vectors, zero at first")


class Model(Recommender):
    """Item vectors from texts, user vectors as weighted sums of them.

    The heads are residuals that are zero at first and the weights begin as a plain mean or a fixed
    decay, so that training begins at the zero-shot quality.
    """

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(parts)
        self.history, self.cosine = config.history, config.score == "cosine"
        width = self.encoder.width
        self.item_head = nn.Linear(width, width, bias=False) if config.heads else None
        self.user_head = nn.Linear(width, width, bias=False) if config.heads else None
        for head in (self.item_head, self.user_head):
            if head is not None:
                nn.init.zeros_(head.weight)
        if self.cosine:
            self.log_scale = nn.Parameter(-torch.tensor(config.temperature).log())
        if self.history != "mean":
            self.rate = nn.Parameter(torch.tensor(config.recency))
        if self.history == "attention":
            self.attend = nn.Parameter(torch.zeros(width))

    def index(self, plan: ItemBatch) -> Tensor:
        """Vectors of a plan's items, (U, D)."""
        x = self.encode_items(plan)
        if self.item_head is not None:
            x = x + self.item_head(x)
        return F.normalize(x, dim=-1) if self.cosine else x

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """User vectors, (Q, D), from the item vectors of the batch's plan.

        A query without history is the zero vector: every item scores the same.
        """
        row, prefix = batch.query.unbind(1)
        history = batch.history[row]
        place = torch.arange(history.shape[1], device=history.device)
        inside = (place < prefix[:, None]) & (history >= 0)
        logits = torch.zeros(history.shape, dtype=items.dtype, device=items.device)
        if self.history != "mean":
            logits = -self.rate * (prefix[:, None] - 1 - place).to(items.dtype)
        if self.history == "attention":
            logits = logits + (items @ self.attend)[history.clamp(min=0)]
        logits = logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1).masked_fill(~inside, 0.0)
        x = F.embedding_bag(history.clamp(min=0), items, per_sample_weights=weights, mode="sum")
        if self.user_head is not None:
            x = x + self.user_head(x)
        return F.normalize(x, dim=-1) if self.cosine else x

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, D), (N, D) -> (Q, N)."""
        scores = queries @ items.T
        return scores * self.log_scale.exp() if self.cosine else scores

    def forward(self, batch: Batch) -> Scored:
        """Query and item vectors of the plan, and the scores of the candidates."""
        items = self.index(batch.plan)
        queries = self.queries(batch, items)
        picked = items[batch.candidates.clamp(min=0)]
        scores = (picked @ queries.unsqueeze(-1)).squeeze(-1)
        if self.cosine:
            scores = scores * self.log_scale.exp()
        return Scored(scores=scores, queries=queries, items=items)
