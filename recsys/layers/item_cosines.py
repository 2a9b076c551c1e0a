"""How alike items are: cosines between what a model has of each. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_BLOCK = 1 << 13
"""Items whose weights are held at a time."""


def compute_cosines(vectors: Floats) -> Floats:
    """(N, F) -> (N, N); 0 with a vector of zeros."""
    return _normalize(vectors @ vectors.T)


def compute_sparse_cosines(rows: csr_matrix) -> Floats:
    """(N, F) sparse -> (N, N); 0 with a row of zeros."""
    return _normalize((rows @ rows.T).toarray())


def compute_similar_cosines(terms: Sequence[tuple[csr_matrix, np.float32]], rows: Ints) -> Floats:
    """(N, N) of items whose scores are sums over matrices of similar items.

    What stands for an item is what each item of the catalog adds to its score: its column.

    Args:
        terms: Matrices (I, I), rows what a history holds and columns what is scored, and what each
            counts.
        rows: (N,) catalog rows.
    """
    columns = sum(matrix[:, rows] * share for matrix, share in terms)
    return compute_sparse_cosines(columns.T.tocsr())


@dataclass(frozen=True)
class EaseWeights:
    """The weights of EASE, as `layers.ease.ClosedForm` has them, and a part of their columns.

    Attributes:
        inverse: (n, n) P of the items seen in training.
        seen: (n,) their catalog rows, ascending.
        penalty: (I,) what a column of P is multiplied with.
        rho: How much the text side counts.
        projected: (I, D) P V, or None where there is no text side.
        weights: (D, I) of the text side, or None.
    """

    inverse: Floats
    seen: Ints
    penalty: Floats
    rho: float
    projected: Floats | None
    weights: Floats | None

    def compute_cosines(self, rows: Ints) -> Floats:
        """(N, N) of items (N,) by their columns: what each item of a history adds to their scores.

        The weight of an item for itself is 0.
        """
        place = np.searchsorted(self.seen, rows).clip(max=len(self.seen) - 1)
        warm = self.seen[place] == rows
        own = -self.inverse[place[warm]] * self.penalty[rows[warm], None]
        gram = np.zeros((len(rows), len(rows)), dtype=np.float32)
        count = len(self.penalty)
        slots = np.full(count, -1, dtype=np.int64)  # where P has an item
        slots[self.seen] = np.arange(len(self.seen))
        # Without texts, an item that training has not seen adds nothing to any score.
        every = self.seen if self.weights is None else np.arange(count)
        for start in range(0, len(every), _BLOCK):
            block = every[start : start + _BLOCK]
            part = np.zeros((len(rows), len(block)), dtype=np.float32)
            known = slots[block] >= 0
            part[np.ix_(warm, known)] = own[:, slots[block[known]]]
            if self.weights is not None and self.projected is not None:
                text = self.weights[:, rows].T @ self.projected[block].T
                part += np.float32(self.rho) * text
            part[rows[:, None] == block] = 0.0
            gram += part @ part.T
        return _normalize(gram)


def _normalize(products: Floats) -> Floats:
    """Products (N, N) of vectors with each other, over the lengths of both."""
    lengths = np.sqrt(np.diagonal(products).clip(min=0))
    known = lengths > 0
    shares = np.zeros_like(lengths)
    np.divide(1.0, lengths, out=shares, where=known)
    out: Floats = products * shares[:, None] * shares
    return out
