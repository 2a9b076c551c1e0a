"""Similar items of a history's, as a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recsys.architectures.item_knn import Config
from recsys.data.training_events import Interactions
from recsys.layers.baselines import gather_history_rows, make_history_matrix, require_interactions
from recsys.layers.co_occurrence import PairWeights, compute_windowed_neighbours
from recsys.layers.item_item import compute_cosine_neighbours, compute_squares
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components
from recsys.types import Batch, ItemBatch, Scored

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


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
        events = require_interactions(parts.interactions, "item_knn")
        # Rows are what the history holds, columns what is scored.
        self.similar = _compute_neighbours(events, len(parts.texts), config).T.tocsr()

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows, (N,) rows -> (Q, N)."""
        size, rows = self.similar.shape[0], items.cpu()
        had = make_history_matrix(queries, size, self.recency, self.binary)
        scores = had @ self.similar
        if len(rows) < size or not torch.equal(rows, torch.arange(size)):
            scores = scores[:, rows.numpy()]  # before it is dense: a catalog may be large
        return torch.from_numpy(scores.toarray()).to(queries.device)

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))


def _compute_neighbours(events: Interactions, items: int, config: Config) -> csr_matrix:
    """(I, I) similar items of each of so many items."""
    matrix = events.make_matrix(items, config.binary)
    if config.window is None:
        return compute_cosine_neighbours(matrix, config.neighbours, config.shrink)
    chosen = events.chosen.numpy()
    return compute_windowed_neighbours(
        events.users.numpy()[chosen],
        events.items.numpy()[chosen],
        compute_squares(matrix),
        PairWeights(config.window, config.gap, config.backward, config.binary),
        config.neighbours,
        config.shrink,
    )
