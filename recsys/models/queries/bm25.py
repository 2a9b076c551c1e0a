"""BM25 over items whose texts training queries extend, as a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.architectures.bm25 import Config
from recsys.config.schema import list_grid
from recsys.data.training_events import TrainingQueries
from recsys.layers.queries.word_counts import Vocabulary
from recsys.models.words import WordRecommender
from recsys.recommender.choosing import Rescored, measure_and_choose
from recsys.recommender.components import Components
from recsys.recommender.fitted import Fit, FittedRecommender
from recsys.types import Batch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]

_SIZE = 512
"""Training queries that are read at a time."""


class Model(WordRecommender, FittedRecommender):
    """Robertson's weights of words in items, times how often a query has them.

    Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), section
    3.4, with the inverse document frequency of Lucene, which is never negative. An item's text goes
    on with those of the training queries that ended in it; one that came later has its own alone.
    Words and what they weigh are those of the fit.
    """

    most_cases = 2500

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        served = parts.served
        if served is None:
            self.words, self.added = self._collect_words(parts)
            self.counts = self.words.count(parts.texts) + self.added
            fitted = self.counts if parts.fitted is None else self._count_fitted(parts)
            self.idf = compute_idf(fitted)
            self.mean_length = float(fitted.sum() / max(1, fitted.shape[0]))
        else:
            self.words, self.idf = Vocabulary(served["words"].numpy()), served["idf"].numpy()
            self.mean_length = float(served["mean_length"])
            self.added = self._restore_added(served)
            self.counts = self.words.count(parts.texts) + self.added
        if not self.needs_fit:
            self.restore(self._list_settings()[0])

    @property
    def needs_fit(self) -> bool:
        """Whether an option leaves more than one alternative."""
        return len(self._list_settings()) > 1

    def _list_settings(self) -> list[dict[str, float]]:
        grids = itertools.product(*(list_grid(self.config, name) for name in ("k1", "b")))
        return [{"k1": k1, "b": b} for k1, b in grids]

    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Chooses among all combinations of what is open."""
        alternatives = [
            (each, Rescored(self, partial(self.score_by, self._weigh_items(each))))
            for each in self._list_settings()
        ]
        fit = measure_and_choose(self, alternatives, batches(), monitor)
        self.restore(fit.state)
        return fit

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the numbers that `fit` has chosen."""
        self.vectors = self._weigh_items(state)

    def _weigh_items(self, settings: Mapping[str, Any]) -> csr_matrix:
        """(I, words) by some numbers."""
        k1, b = float(settings["k1"]), float(settings["b"])
        return weigh_words(self.counts, self.idf, self.mean_length, k1, b)

    def _collect_words(self, parts: Components) -> tuple[Vocabulary, csr_matrix]:
        """The words of the fit, and what training queries add to the items' (I, words)."""
        from scipy.sparse import csr_matrix

        texts = list(parts.texts)
        if parts.fitted is not None:
            texts = parts.fitted["text"].drop_nulls().to_list()
        queries = parts.training_queries
        if queries is None or not len(queries):
            words = Vocabulary.collect(texts)
            return words, csr_matrix((len(parts.texts), len(words)), dtype=np.float32)
        said = self._compose_texts(queries)
        words = Vocabulary.collect([*texts, *said])
        ended = queries.make_matrix(len(parts.texts))
        return words, (ended.T @ words.count(said)).tocsr()

    def _compose_texts(self, queries: TrainingQueries) -> list[str]:
        written = self.parts.written
        assert written is not None, "queries are texts"
        return [
            text
            for batch in queries.iter_batches(_SIZE)
            for text in written.compose_plain_texts(batch)
        ]

    def _count_fitted(self, parts: Components) -> csr_matrix:
        """(n, words) of the catalog of the fit; of items that are gone, no text is known."""
        from scipy.sparse import csr_matrix

        assert parts.fitted is not None
        assert parts.origin is not None
        known = (parts.origin >= 0).nonzero()[:, 0].numpy()
        shape = (len(parts.fitted), len(parts.texts))
        places = (parts.origin[known].numpy(), known)
        moved = csr_matrix((np.ones(len(known), dtype=np.float32), places), shape=shape)
        texts = parts.fitted["text"].fill_null("").to_list()
        return (self.words.count(texts) + moved @ self.added).tocsr()

    def _restore_added(self, served: Mapping[str, Tensor]) -> csr_matrix:
        """(I, words) what queries added to items; to later ones, nothing."""
        from scipy.sparse import csr_matrix

        data, columns, starts = (
            served[f"added_{name}"].numpy() for name in ("data", "columns", "starts")
        )
        items = len(self.parts.texts)
        starts = np.pad(starts, (0, items + 1 - len(starts)), mode="edge")
        return csr_matrix((data, columns, starts), shape=(items, len(self.words)))

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Digests of words, what they weigh, and what queries added to items; no text."""
        return {
            "words": torch.from_numpy(self.words.digests),
            "idf": torch.from_numpy(self.idf),
            "mean_length": torch.tensor(self.mean_length, dtype=torch.float64),
            "added_data": torch.from_numpy(self.added.data.astype(np.float32)),
            "added_columns": torch.from_numpy(self.added.indices.astype(np.int64)),
            "added_starts": torch.from_numpy(self.added.indptr.astype(np.int64)),
        }

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """How often queries have words, dense, (Q, words)."""
        written = self.parts.written
        assert written is not None, "queries are texts"
        return self.compute_weights(written.compose_plain_texts(batch)).to(batch.users.device)

    def weigh_texts(self, texts: list[str]) -> csr_matrix:
        """(Q, words) how often texts have words."""
        return self.words.count(texts)


def compute_idf(counts: csr_matrix) -> Floats:
    """(W,) log(1 + (N - n + 0.5) / (n + 0.5)) of words that n of N texts (N, W) have."""
    has = np.bincount(counts.tocsr().indices, minlength=counts.shape[1])
    out: Floats = np.log1p((counts.shape[0] - has + 0.5) / (has + 0.5)).astype(np.float32)
    return out


def weigh_words(
    counts: csr_matrix, idf: Floats, mean_length: float, k1: float, b: float
) -> csr_matrix:
    """(N, W) what words weigh in texts: idf f (k1 + 1) / (f + k1 (1 - b + b length / mean)).

    Args:
        counts: (N, W) f, how often each text has each word.
        idf: (W,).
        mean_length: Words of a text on average.
        k1: How much further occurrences count.
        b: How much the length counts.
    """
    out = counts.tocsr().astype(np.float32)
    lengths = np.asarray(out.sum(1)).ravel() / max(mean_length, np.finfo(np.float32).tiny)
    owner = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
    doubt = k1 * (1 - b + b * lengths[owner])
    out.data = (idf[out.indices] * out.data * (k1 + 1) / (out.data + doubt)).astype(np.float32)
    return out
