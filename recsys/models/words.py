"""Base of what scores items by the words that their texts share with a query's."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.layers.item_cosines import compute_sparse_cosines
from recsys.recommender.base import Recommender
from recsys.types import Batch, ItemBatch, Ragged, Scored

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class WordRecommender(Recommender):
    """Products of what words weigh in items and in queries; nothing trains.

    An item's representation is its catalog row: the sparse vectors stay in one place. A query that
    is a text is read whole, however many tokens an encoder would take of it; one that has no word
    in common with the catalog is answered with what is popular, as a user without a history is.

    Attributes:
        vectors: (I, words) float32, of the items; None until validation has chosen.
    """

    vectors: csr_matrix | None = None

    @abc.abstractmethod
    def weigh_texts(self, texts: list[str]) -> csr_matrix:
        """(Q, words) float32 what words weigh in texts that ask."""

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, words), (N,) rows -> (Q, N) products of item vectors with those of queries."""
        return self.score_by(self.get_vectors(), queries, items)

    def get_vectors(self) -> csr_matrix:
        """(I, words) of the items.

        Raises:
            ConfigError: Validation is yet to choose what they depend on.
        """
        if self.vectors is None:
            raise ConfigError(
                f"{type(self).__module__} has settings that validation is yet to choose; run fit "
                "first."
            )
        return self.vectors

    def score_by(self, vectors: csr_matrix, queries: Tensor, items: Tensor) -> Tensor:
        """As `score`, by some item vectors (I, words)."""
        out = vectors[items.cpu().numpy()] @ queries.cpu().numpy().T
        scores = torch.from_numpy(np.ascontiguousarray(out.T)).to(queries.device)
        if self.needs_history:
            return scores
        wordless = ~queries.any(1, keepdim=True)
        return torch.where(
            wordless, self.get_popularity().to(scores)[items.to(scores.device)], scores
        )

    def compute_cosines(self, items: Tensor) -> Tensor:
        """Cosines between what words weigh in items (N,), (N, N)."""
        return torch.from_numpy(compute_sparse_cosines(self.get_vectors()[items.cpu().numpy()]))

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """What the words of the text itself weigh, (1, words)."""
        return self.compute_weights([text])

    def compute_weights(self, texts: list[str]) -> Tensor:
        """(Q, words) dense, on the host, as `weigh_texts`."""
        return torch.from_numpy(self.weigh_texts(texts).toarray())
