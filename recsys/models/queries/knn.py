"""Neighbours among training queries, as a model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.architectures.query_knn import Config
from recsys.config.schema import list_grid
from recsys.data.training_events import TrainingQueries, get_query_users
from recsys.errors import ConfigError
from recsys.layers.ease import RecentResults
from recsys.layers.queries.neighbours import QueryIndex, VectorIndex, WordIndex, find_nearest
from recsys.layers.queries.word_counts import Vocabulary, compute_idf, compute_tfidf
from recsys.models.queries.stored import OWNERS
from recsys.recommender.choosing import Rescored, measure_and_choose
from recsys.recommender.components import Components
from recsys.recommender.fitted import Fit, FittedRecommender
from recsys.types import Batch, ItemBatch, Ragged, Scored, Witnesses

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SIZE = 512
"""Training queries that are read at a time."""

_NAMED = 3  # further items, of which a line may name some
_SHARED = 2  # users who took one that is named

_OPEN = "query_knn has settings that validation is yet to choose; run fit first."


@dataclass(frozen=True)
class Settings:
    """A number for each option that may be open."""

    neighbours: float
    temperature: float
    popularity: float


class Model(FittedRecommender):
    """What the most similar training queries ended in, by a softmax over their similarities.

    After Xie et al., Neighborhood-Based Collaborative Filtering for Conversational Recommendation
    (RecSys 2024), which finds the items that go with similar training dialogues; share and
    temperature are ours. An item's representation is its catalog row, a query's the rows of its
    nearest training queries with their similarities. A query never finds those of its own user. One
    that is like none is answered with what is popular.
    """

    has_witnesses = True
    most_cases = 2500

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        self.needs_history = config.user == "history"
        self.index_of_queries: QueryIndex
        self.ended: csr_matrix
        self.users: Tensor
        if parts.served is None:
            self._read_queries(parts)
        else:
            self._restore_queries(parts.served)
        self.settings: Settings | None = None
        if not self.needs_fit:
            (self.settings,) = self._list_settings()

    def _read_queries(self, parts: Components) -> None:
        """Indexes the training queries.

        Raises:
            ConfigError: There are none.
        """
        queries = parts.training_queries
        if queries is None or not len(queries):
            raise ConfigError(
                "architecture query_knn looks among the queries of training, and the split holds "
                "none that something comes before; choose another split, or set "
                "architecture=popularity."
            )
        self.users = torch.from_numpy(queries.users)
        self.ended = queries.make_matrix(len(parts.texts))
        if parts.query_vectors is not None:
            self.index_of_queries = VectorIndex(parts.query_vectors)
            return
        texts = list(self._iter_texts(queries))
        self.words = Vocabulary.collect(texts)
        counts = self.words.count(texts)
        self.idf = compute_idf(counts)
        self.index_of_queries = WordIndex(compute_tfidf(counts, self.idf))

    def _iter_texts(self, queries: TrainingQueries) -> Iterable[str]:
        for batch in queries.iter_batches(_SIZE):
            yield from self._compose_texts(batch)

    def _compose_texts(self, batch: Batch) -> list[str]:
        """(Q) texts of queries: that of the user, or the titles of the history."""
        if self.parts.written is not None:
            return self.parts.written.compose_plain_texts(batch)
        host, texts = batch.at_host, self.parts.texts
        titles = [texts[row] for row in host.plan.items.tolist()]
        history = host.history.tolist()
        return [
            " ".join(titles[at] for at in history[row][:prefix] if at >= 0)
            for row, prefix in host.query.tolist()
        ]

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Of each training query its user row, items, and vector or digests of words; no text."""
        ended = self.ended
        state = {
            OWNERS: self.users,
            "ended_columns": torch.from_numpy(ended.indices.astype(np.int64)),
            "ended_starts": torch.from_numpy(ended.indptr.astype(np.int64)),
        }
        if isinstance(self.index_of_queries, VectorIndex):
            return {**state, "vectors": self.index_of_queries.vectors}
        assert isinstance(self.index_of_queries, WordIndex)
        rows = self.index_of_queries.rows
        return {
            **state,
            "words": torch.from_numpy(self.words.digests),
            "idf": torch.from_numpy(self.idf),
            "rows_data": torch.from_numpy(rows.data),
            "rows_columns": torch.from_numpy(rows.indices.astype(np.int64)),
            "rows_starts": torch.from_numpy(rows.indptr.astype(np.int64)),
        }

    def _restore_queries(self, served: Mapping[str, Tensor]) -> None:
        """Takes what `make_serving_state` gave; items that came later ended no query."""
        from scipy.sparse import csr_matrix

        self.users = served[OWNERS].long()
        columns, starts = served["ended_columns"].numpy(), served["ended_starts"].numpy()
        shape = (len(self.users), len(self.parts.texts))
        one = np.ones(len(columns), dtype=np.float32)
        self.ended = csr_matrix((one, columns, starts), shape=shape)
        if "vectors" in served:
            self.index_of_queries = VectorIndex(served["vectors"])
            return
        self.words, self.idf = Vocabulary(served["words"].numpy()), served["idf"].numpy()
        arrays = (served[f"rows_{name}"].numpy() for name in ("data", "columns", "starts"))
        rows = csr_matrix(tuple(arrays), shape=(len(self.users), len(self.words)))
        self.index_of_queries = WordIndex(rows)

    @property
    def needs_fit(self) -> bool:
        """Whether an option leaves more than one alternative."""
        return len(self._list_settings()) > 1

    def _list_settings(self) -> list[Settings]:
        names = ("neighbours", "temperature", "popularity")
        grids = (list_grid(self.config, name) for name in names)
        return [Settings(*each) for each in itertools.product(*grids)]

    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Chooses among all combinations of what is open; neighbours are looked for once."""
        kept = RecentResults(1)

        def find(batch: Batch, items: Tensor) -> Tensor:
            return kept.get("queries", id(batch), lambda: self.queries(batch, items))

        alternatives = []
        for each in self._list_settings():
            ranker = Rescored(self, partial(self.score_by, each))
            ranker.queries = find
            alternatives.append((asdict(each), ranker))
        fit = measure_and_choose(self, alternatives, batches(), monitor)
        self.restore(fit.state)
        return fit

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the numbers that `fit` has chosen."""
        self.settings = Settings(**{name: float(value) for name, value in state.items()})

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Rows of the nearest training queries and their similarities, (Q, 2, k) float64."""
        users = get_query_users(batch)
        if self.config.query_vectors_from is None:
            asked = self._weigh_words(self._compose_texts(batch))
        elif self.parts.read_query is None:
            raise ConfigError(self._describe_missing_reader())
        else:
            asked = self.parts.read_query(batch)
        near = self._find_nearest(asked, users)
        if self.parts.written is not None:  # an encoder has a vector of no text, too
            near[[not text.strip() for text in self._compose_texts(batch)], 0] = -1
        return near.to(batch.users.device)

    def _weigh_words(self, texts: list[str]) -> Tensor:
        """(Q, words) of texts."""
        return torch.from_numpy(compute_tfidf(self.words.count(texts), self.idf).toarray())

    def _find_nearest(self, asked: Tensor, users: Tensor) -> Tensor:
        """(Q, 2, k) of queries as the index compares them."""
        count = int(max(list_grid(self.config, "neighbours")))
        rows, values = find_nearest(self.index_of_queries, asked, count, self.users, users)
        return torch.stack([rows.double(), values.double()], dim=1)

    def _describe_missing_reader(self) -> str:
        return (
            "query_knn compares queries by architecture.vectors="
            f"{self.config.vectors}, whose encoder is not at hand here; ask the run itself."
        )

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The neighbours of the text, (1, 2, k).

        Raises:
            ConfigError: The encoder is not at hand.
        """
        if self.config.query_vectors_from is None:
            asked = self._weigh_words([text])
        elif self.parts.read_text is None:
            raise ConfigError(self._describe_missing_reader())
        else:
            asked = self.parts.read_text(batch, text, tokens).cpu()
        return self._find_nearest(asked, torch.full((1,), -1))

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, 2, k), (N,) rows -> (Q, N)."""
        if self.settings is None:
            raise ConfigError(_OPEN)
        return self.score_by(self.settings, queries, items)

    def score_by(self, settings: Settings, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, 2, k), (N,) rows -> (Q, N) by some numbers."""
        weights = self._weigh(settings, queries)
        rows = items.cpu()
        parts = weights @ self.ended
        if len(rows) < parts.shape[1] or not torch.equal(rows, torch.arange(parts.shape[1])):
            parts = parts[:, rows.numpy()]  # before it is dense: a catalog may be large
        scores = torch.from_numpy(parts.toarray())
        popular = self.get_popularity().cpu()
        popular = (popular / popular.sum().clamp(min=1))[rows]
        share = settings.popularity
        mixed = scores.mul_(1 - share).add_(popular, alpha=share)
        alone = torch.from_numpy(np.diff(weights.indptr) == 0)
        return torch.where(alone[:, None], popular, mixed).to(queries.device)

    def _weigh(self, settings: Settings, queries: Tensor) -> csr_matrix:
        """(Q, N) softmax over the similarities of neighbours, each row 1 in sum or empty."""
        from scipy.sparse import csr_matrix

        near = queries.cpu()[:, :, : int(settings.neighbours)]
        rows, similar = near.unbind(1)
        known = rows >= 0
        logits = (similar / settings.temperature).masked_fill(~known, -torch.inf)
        weights = torch.softmax(logits, dim=1)[known]
        starts = np.append(0, known.sum(1).cumsum(0).numpy())
        shape = (len(near), len(self.users))
        columns = rows[known].long().numpy()
        return csr_matrix((weights.float().numpy(), columns, starts), shape=shape)

    def count_witnesses(self, query: Tensor, rows: Tensor) -> list[Witnesses]:
        """How many of a query's neighbours led to items, and what else their users took.

        What a single user took is nobody's business: an item is named that two of them took.
        """
        if self.settings is None:
            raise ConfigError(_OPEN)
        nearest = query.cpu()[0, 0, : int(self.settings.neighbours)].long()
        near = nearest[nearest >= 0].numpy()
        found = self.ended[near].toarray() > 0
        out = []
        for row in rows.tolist():
            led = near[found[:, row]]
            mine = np.isin(self.users.numpy(), self.users.numpy()[led])
            took = self._count_users(mine)
            took[row] = 0
            order = np.argsort(-took, kind="stable")[:_NAMED]
            named = tuple(each for each in order.tolist() if took[each] >= _SHARED)
            out.append(Witnesses(len(led), len(near), named))
        return out

    def _count_users(self, mine: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """(I,) how many users took each item in some of the queries (N,)."""
        at, items = self.ended[mine].nonzero()
        pairs = np.unique(np.stack([self.users.numpy()[mine][at], items]), axis=1)
        return np.bincount(pairs[1], minlength=self.ended.shape[1])

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))
