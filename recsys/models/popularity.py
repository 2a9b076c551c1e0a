"""One ranking for everyone, and the order in which a list comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from recsys.architectures.popularity import Config
from recsys.data.training_events import DAY
from recsys.errors import ConfigError
from recsys.layers.baselines import require_interactions
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components, PlainForm
from recsys.types import Batch, ItemBatch, Scored, ScoreSplit


class Model(Recommender):
    """The same ranking for everyone; it needs no encoder and no training.

    Raises:
        ConfigError: Times are needed and the data has none, or the days are 0.
    """

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.weights = parts.counts.float()
        if parts.served is not None:
            self.weights = parts.served["weights"]
        elif config.kind == "reversed":
            self.weights = -self.weights
        elif config.kind == "equal":
            self.weights = torch.zeros_like(self.weights)
        elif config.kind != "all_time":
            self.weights = _weigh_by_age(parts, config.kind, config.days)

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """How popular the items are, (I,)."""
        return {"weights": self.weights}

    def make_plain_form(self) -> PlainForm:
        """How popular the items are, (I,)."""
        return PlainForm("popularity", {}, {"weights": self.weights})

    def index(self, plan: ItemBatch) -> Tensor:
        """How popular the items are, (U, 1)."""
        return self.weights.to(plan.items.device)[plan.items][:, None]

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Ones, (Q, 1)."""
        return torch.ones(len(batch.query), 1, device=items.device)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, 1), (N, 1) -> (Q, N)."""
        return queries @ items.T

    def split_scores(self, batch: Batch, rows: Tensor, catalog: Tensor | None = None) -> ScoreSplit:
        """Scores of one query: the history has no part in them."""
        scores = self.index(ItemBatch(rows, ()))[:, 0]
        none = scores.new_zeros(len(rows), len(batch.plan.items))
        return ScoreSplit(none, {"popularity": scores})

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.index(batch.plan)[:, 0][batch.candidates.clamp(min=0)])


class ListOrder(Recommender):
    """Ranks the candidates of a case as they stand; it cannot rank a catalog."""

    ranks_catalog = False

    def index(self, plan: ItemBatch) -> Tensor:
        """Nothing of an item, (U, 1)."""
        return torch.zeros(len(plan.items), 1, device=plan.items.device)

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Nothing of a query, (Q, 1)."""
        return torch.zeros(len(batch.query), 1, device=items.device)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, 1), (N, 1) -> (Q, N): all alike, as an item by itself stands in no place."""
        return queries @ items.T

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) the higher, the earlier a candidate stands."""
        place = torch.arange(batch.candidates.shape[1], device=batch.candidates.device)
        return -place.expand(batch.candidates.shape).float()

    def forward(self, batch: Batch) -> Scored:
        """As `score_candidates`."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))


def _weigh_by_age(parts: Components, kind: Literal["recent", "decay"], days: float) -> Tensor:
    """(I,) float32: the training events of each item by their age."""
    events = require_interactions(parts.interactions, "popularity")
    if events.times is None:
        raise ConfigError(
            f"architecture.kind={kind} needs times, and the interactions have only an order; name "
            "the time column, or set architecture.kind=all_time."
        )
    age = (events.times.max() - events.times).double() / DAY
    weight = (age < days).double() if kind == "recent" else torch.exp2(-age / days)
    total = torch.zeros(len(parts.counts), dtype=torch.float64)
    return total.index_add_(0, events.items, weight).float()
