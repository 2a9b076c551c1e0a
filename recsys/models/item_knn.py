"""Similar items of a history's, as a model."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recsys.architectures.item_knn import Config
from recsys.config.schema import list_grid
from recsys.data.training_events import Interactions
from recsys.errors import ConfigError
from recsys.layers.baselines import (
    gather_history_rows,
    make_history_matrix,
    require_interactions,
    split_history,
)
from recsys.layers.co_occurrence import PairWeights, compute_windowed_neighbours
from recsys.layers.item_cosines import compute_similar_cosines
from recsys.layers.item_item import compute_cosine_neighbours, compute_squares
from recsys.layers.vector_neighbours import compute_vector_neighbours, score_nearest
from recsys.recommender.choosing import Rescored, choose_best, measure_alternatives
from recsys.recommender.components import Components, PlainForm
from recsys.recommender.fitted import Fit, FittedRecommender
from recsys.recommender.text_queries import read_text_query
from recsys.runtime.progress import track
from recsys.runtime.store import Store
from recsys.types import Batch, ItemBatch, Ragged, Scored, ScoreSplit

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


_ARRAYS = ("data", "indices", "indptr")
"""What a sparse matrix consists of."""


@dataclass(frozen=True)
class Settings:
    """A number for each option that may be open; the last one is of item vectors."""

    shrink: float
    recency: float
    text_weight: float = 0.0


class Model(FittedRecommender):
    """An item's score is the sum of its similarities to the history, where they are neighbours.

    After Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms (WWW 2001),
    section 3. An item's representation is its catalog row, a query's the rows of its history. Items
    that training has not seen score 0, but for item vectors: then a score is the weighted mean of
    both kinds of similarity, each in units of the mean one that is kept.
    """

    needs_history = True
    most_cases = 2500

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        self.near: csr_matrix | None = None
        self._similar: csr_matrix | None = None
        if parts.served is not None:
            self._similar = _restore_matrix(parts.served, "similar", len(parts.texts))
        else:
            self.events = require_interactions(parts.interactions, "item_knn")
        if parts.item_vectors is not None:
            # New items are neighbours of old ones too, so that all are looked for again.
            if parts.served is not None and parts.origin is None:
                self.near = _restore_matrix(parts.served, "near", len(parts.texts))
            else:
                passing = parts.origin is not None  # a catalog that no other run has
                self.near = _load_or_compute_near(
                    parts.item_vectors, config.text_neighbours, passing
                )
        self.form: SparseForm | None = None
        if not self.needs_fit:
            self.restore(asdict(self._list_settings()[0]))

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """The matrices of similar items, each as the three arrays of a sparse one."""
        if self.form is None:
            raise ConfigError(
                "item_knn has settings that validation is yet to choose; run fit first."
            )
        kinds = {"similar": self.form.similar, "near": self.near}
        return {
            f"{kind}_{name}": torch.from_numpy(np.array(getattr(matrix, name)))
            for kind, matrix in kinds.items()
            if matrix is not None
            for name in _ARRAYS
        }

    def make_plain_form(self) -> PlainForm | None:
        """The settings; `make_serving_state` gives the matrices."""
        if self.form is None:
            return None
        numbers = asdict(self.form.settings)
        if self.near is None:
            numbers["text_weight"] = 0.0
        return PlainForm("similar", {**numbers, "binary": float(self.config.binary)})

    @property
    def needs_fit(self) -> bool:
        """Whether an option leaves more than one alternative."""
        return len(self._list_settings()) > 1

    def _list_settings(self) -> list[Settings]:
        """The alternatives, those of one matrix of similar items together."""
        names = ("shrink", "recency", "text_weight")
        grids = [list_grid(self.config, name) for name in names]
        if self.config.item_vectors_from is None:
            grids[-1] = (0.0,)
        return [Settings(*each) for each in itertools.product(*grids)]

    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Chooses among all combinations of what is open."""
        settings, cases, trials = self._list_settings(), list(batches()), []
        for shrink, group in itertools.groupby(settings, lambda each: each.shrink):
            similar = self._compute_similar(shrink)
            alternatives = [
                (self._name(each), Rescored(self, self._make_form(similar, each).score))
                for each in group
            ]
            with track(f"choosing with shrink={shrink:g}", len(cases), "batches") as task:
                trials += measure_alternatives(
                    alternatives, self.make_evaluator, cases, task.advance
                )
        fit = choose_best(trials, monitor)
        self.restore(fit.state)
        return fit

    def _name(self, settings: Settings) -> dict[str, float]:
        """The options that have a part in the scores."""
        numbers = asdict(settings)
        if self.near is None:
            del numbers["text_weight"]
        return numbers

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes the numbers that `fit` has chosen."""
        settings = Settings(**{name: float(value) for name, value in state.items()})
        self.form = self._make_form(self._compute_similar(settings.shrink), settings)

    def _make_form(self, similar: csr_matrix, settings: Settings) -> SparseForm:
        return SparseForm(similar, self.near, settings, self.config.binary)

    def _compute_similar(self, shrink: float) -> csr_matrix:
        """(I, I) similarities: rows are what a history holds, columns what is scored."""
        if self._similar is not None:
            return self._similar
        similar = _compute_neighbours(self.events, len(self.parts.texts), self.config, shrink)
        similar = similar.T.tocsr()
        if self.near is not None:
            similar.data /= _compute_mean(similar)
        return similar

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows or (Q, D) vectors of texts, (N,) rows -> (Q, N)."""
        if self.form is None:
            raise ConfigError(
                "item_knn has settings that validation is yet to choose; run fit first."
            )
        if queries.is_floating_point():
            assert self.parts.item_vectors is not None
            vectors, count = self.parts.item_vectors, self.config.text_neighbours
            return score_nearest(queries.cpu(), vectors, count)[:, items.cpu()].to(items.device)
        return self.form.score(queries, items)

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The vector of the text, (1, D): it leads to its nearest items, as one of a history does.

        Raises:
            ConfigError: The encoder is not at hand, or item vectors have no part in the scores.
        """
        if self.near is None:
            return super().make_text_query(batch, text, tokens)
        taken = self.form is not None and not self.form.settings.text_weight
        unused = "text_weight=0" if taken else ""
        own = self.config.vectors
        return read_text_query(self.parts, "item_knn", own, unused, batch, text, tokens)

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """Scores of one query, which are linear in its history."""
        if self.form is None:
            return None
        queries = self.queries(batch, batch.plan.items)
        return ScoreSplit(self.form.split(queries, batch.plan.items, rows), {})

    def compute_cosines(self, items: Tensor) -> Tensor | None:
        """Cosines between what the items of a catalog add to the scores of items (N,), (N, N)."""
        if self.form is None:
            return None
        return torch.from_numpy(compute_similar_cosines(self.form.terms, items.cpu().numpy()))

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))


class SparseForm:
    """Scores of histories by items that are similar, in one way or in two.

    Args:
        similar: (I, I) rows are what a history holds, columns what is scored.
        near: (I, I) the same by item vectors; None where there are none.
        settings: The numbers.
        binary: An item that stands several times in a history counts as its latest event.
    """

    def __init__(
        self, similar: csr_matrix, near: csr_matrix | None, settings: Settings, binary: bool
    ) -> None:
        self.settings, self._binary, self._items = settings, binary, similar.shape[0]
        self.similar, share = similar, settings.text_weight
        terms = [(similar, 1.0)] if near is None else [(similar, 1 - share), (near, share)]
        self.terms = [(matrix, np.float32(part)) for matrix, part in terms if part]

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows, (N,) rows -> (Q, N)."""
        return self._multiply(self._weigh(queries), items).to(queries.device)

    def split(self, queries: Tensor, own: Tensor, items: Tensor) -> Tensor:
        """What items (U,) of a single history (1, H) add to scores of items (N,): (N, U)."""
        return self._multiply(split_history(self._weigh(queries), own), items).T.to(items.device)

    def _weigh(self, queries: Tensor) -> csr_matrix:
        return make_history_matrix(queries, self._items, self.settings.recency, self._binary)

    def _multiply(self, had: csr_matrix, items: Tensor) -> Tensor:
        """(Q, I) histories, (N,) rows -> (Q, N)."""
        scores = sum((had * part) @ matrix for matrix, part in self.terms)
        rows = items.cpu()
        if len(rows) < self._items or not torch.equal(rows, torch.arange(self._items)):
            scores = scores[:, rows.numpy()]  # before it is dense: a catalog may be large
        return torch.from_numpy(scores.toarray())


def _compute_neighbours(
    events: Interactions, items: int, config: Config, shrink: float
) -> csr_matrix:
    """(I, I) similar items of each of so many items."""
    matrix = events.make_matrix(items, config.binary)
    if config.window is None:
        return compute_cosine_neighbours(matrix, config.neighbours, shrink)
    squares = compute_squares(matrix)
    del matrix
    chosen = events.chosen.numpy()
    return compute_windowed_neighbours(
        events.users.numpy()[chosen],
        events.items.numpy()[chosen],
        squares,
        PairWeights(config.window, config.gap, config.backward, config.binary),
        config.neighbours,
        shrink,
    )


def _load_or_compute_near(vectors: Tensor, neighbours: int, passing: bool) -> csr_matrix:
    """(I, I) nearest items of each by their vectors (I, D), 1 on average, mapped from the store.

    Args:
        vectors: Of the items.
        neighbours: How many are kept of each.
        passing: Whether they are of a catalog that changes, of which the store keeps nothing.
    """
    from scipy.sparse import csr_matrix

    def compute() -> csr_matrix:
        with track("nearest items by their vectors", len(vectors), "items") as task:
            near = compute_vector_neighbours(vectors, neighbours, task.advance)
        near.data /= _compute_mean(near)
        return near

    if passing:
        return compute()
    digest = hashlib.sha256(np.ascontiguousarray(vectors.numpy()).data).hexdigest()

    def write(folder: Path) -> None:
        near = compute()
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(near, name))

    key = {"format": 1, "vectors": digest, "shape": list(vectors.shape), "neighbours": neighbours}
    folder = Store().get_or_build("vector_neighbours", key, write, own=True)
    parts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS]
    return csr_matrix(tuple(parts), shape=(len(vectors), len(vectors)))


def _restore_matrix(state: Mapping[str, Tensor], kind: str, items: int) -> csr_matrix:
    """(I, I) a matrix of similar items that `make_serving_state` gave; of later items, nothing."""
    from scipy.sparse import csr_matrix

    data, columns, starts = (state[f"{kind}_{name}"].numpy() for name in _ARRAYS)
    starts = np.pad(starts, (0, items + 1 - len(starts)), mode="edge")
    return csr_matrix((data, columns, starts), shape=(items, items))


def _compute_mean(similar: csr_matrix) -> np.float32:
    """The mean similarity that is kept; 1 where none is."""
    return np.float32(similar.data.mean(dtype=np.float64) if similar.nnz else 1)
