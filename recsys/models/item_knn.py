"""Similar items of a history's, as a model."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.architectures.item_knn import Config
from recsys.layers.baselines import gather_history_rows, make_history_matrix, require_interactions
from recsys.layers.item_item import compute_cosine_neighbours
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components
from recsys.types import Batch, ItemBatch, Scored


class Model(Recommender):
    """An item's score is the sum of its similarities to the history, where they are neighbours.

    After Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms (WWW 2001),
    section 3. An item's representation is its catalog row, a query's the rows of its history. Items
    that training has not seen score 0.
    """

    needs_history = True

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.binary, self.recency = config.binary, config.recency
        matrix = require_interactions(parts.interactions, "item_knn").make_matrix(
            len(parts.texts), config.binary
        )
        # Rows are what the history holds, columns what is scored.
        self.similar = compute_cosine_neighbours(matrix, config.neighbours, config.shrink).T.tocsr()

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows, (N,) rows -> (Q, N)."""
        had = make_history_matrix(queries, self.similar.shape[0], self.recency, self.binary)
        found = torch.from_numpy((had @ self.similar).toarray())
        return found[:, items.cpu()].to(queries.device)

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))
