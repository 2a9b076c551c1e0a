"""Words of a history's texts against those of an item, as a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.architectures.tfidf import Config
from recsys.interactions import history_matrix, history_rows
from recsys.recommender import Parts, Recommender
from recsys.types import Batch, ItemBatch, Ragged, Scored


class Model(Recommender):
    """Term weights of the item texts; it needs no encoder and no training.

    An item's representation is its catalog row: the sparse vectors stay in one place.
    """

    needs_history = True

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(parts)
        self.last = config.history == "last"
        self.decay = config.recency if config.history == "recency" else 0.0
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Any run of word characters is a word: titles are full of model numbers and "3".
        vectorizer = TfidfVectorizer(sublinear_tf=config.sublinear, token_pattern=r"\w+")
        self.vectorizer = vectorizer
        self.vectors = vectorizer.fit_transform(parts.texts).astype(np.float32).tocsr()

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Mean of the history's vectors, dense, (Q, words); zero without a history."""
        rows = history_rows(batch, items)
        if self.last:
            final = (rows >= 0).sum(1, keepdim=True) - 1
            rows = rows.gather(1, final.clamp(min=0))
        weights = history_matrix(rows, self.vectors.shape[0], self.decay, binary=False)
        total = np.maximum(np.asarray(weights.sum(1)), np.finfo(np.float32).tiny)
        mean = (weights @ self.vectors).toarray() / total
        return torch.from_numpy(mean).to(batch.users.device)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, words), (N,) rows -> (Q, N) dot products of unit item vectors with the mean."""
        out = self.vectors[items.cpu().numpy()] @ queries.cpu().numpy().T
        return torch.from_numpy(np.ascontiguousarray(out.T)).to(queries.device)

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.candidate_scores(batch, self.index(batch.plan)))

    def text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The term weights of the text itself, (1, words)."""
        row = self.vectorizer.transform([text]).astype(np.float32)
        return torch.from_numpy(row.toarray())
