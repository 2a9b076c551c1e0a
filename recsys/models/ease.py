"""Item-item weights in closed form, as a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.architectures.ease import Config
from recsys.errors import ConfigError
from recsys.layers.baselines import gather_history_rows, make_history_matrix, require_interactions
from recsys.layers.item_item import compute_ease_weights
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components
from recsys.runtime.store import Store
from recsys.types import Batch, ItemBatch, Scored

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Model(Recommender):
    """A history as a row of zeros and ones times the item-item weights.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (WWW 2019). An item's representation
    is its catalog row, a query's the rows of its history. Items that training has not seen have no
    weights and score 0: the closed form falls apart into them and the rest. Weights are made once
    for the same events and penalty, and mapped from disk.

    Raises:
        ConfigError: The matrix would be too large.
    """

    needs_history = True

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        matrix = require_interactions(parts.interactions, "ease").make_matrix(
            len(parts.texts), binary=True
        )
        seen = np.unique(matrix.indices)
        size = len(seen) ** 2 * 4 / 1e9
        if size > config.limit_gb:
            raise ConfigError(
                f"ease would hold a matrix of {size:.1f} GB for the {len(seen)} items seen in "
                f"training, more than architecture.limit_gb={config.limit_gb:g}; raise it, keep "
                "fewer items with data.max_items, or choose architecture=item_knn."
            )
        self.seen = seen
        self.place = torch.full((len(parts.texts),), -1)
        self.place[torch.from_numpy(seen).long()] = torch.arange(len(seen))
        self.weights = _find_or_build_weights(matrix[:, seen].tocsr(), config.l2)

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Histories as catalog rows in time order, (Q, H), -1 for none."""
        return gather_history_rows(batch, items)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, H) rows, (N,) rows -> (Q, N)."""
        had = make_history_matrix(queries, len(self.place), decay=0.0, binary=True)
        found = torch.from_numpy(had[:, self.seen] @ self.weights)
        place = self.place[items.cpu()]
        scores = found[:, place.clamp(min=0)].masked_fill(place < 0, 0.0)
        return scores.to(queries.device)

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))


def _find_or_build_weights(
    matrix: csr_matrix, l2: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The weights of a matrix (users, I), mapped from the store; made where they are missing."""
    digest = hashlib.sha256()
    for part in (matrix.indptr, matrix.indices, matrix.data):
        digest.update(np.ascontiguousarray(part).tobytes())
    key = {"format": 1, "matrix": digest.hexdigest(), "items": matrix.shape[1], "l2": l2}

    def write_weights(folder: Path) -> None:
        np.save(folder / "weights.npy", compute_ease_weights(matrix, l2))

    folder = Store().get_or_build("ease", key, write_weights, own=True)
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = np.load(
        folder / "weights.npy", mmap_mode="r"
    )
    return weights
