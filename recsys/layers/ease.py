"""EASE in closed form, of events and of item vectors, and both in one.

Nothing of the size items x items is held but the inverse of the events' matrix, on the items that
training has seen. Letters: I items of the catalog, n of them seen in training, D width of vectors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.layers.baselines import make_history_matrix, split_history
from recsys.layers.item_cosines import EaseWeights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

T = TypeVar("T")

_BLOCK = 1 << 16
"""Rows of item vectors that are held in double precision at a time."""


def compute_inverse(matrix: csr_matrix, l2: float, block: int = 1024) -> Floats:
    """P, the inverse of X^T X + l2 I.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data (WWW 2019), equation 5. One Cholesky
    factorisation and its inverse, both in the place of the matrix: nothing else of its size is
    held.

    Args:
        matrix: X (users, n).
        l2: Strength of the L2 penalty.
        block: Items whose products are made at a time.

    Returns:
        (n, n) float32, symmetric.

    Raises:
        DataError: The matrix cannot be inverted in float32.
    """
    columns, n = matrix.T.tocsr(), matrix.shape[1]
    # LAPACK works in place on columns that lie one after the other
    gram = np.empty((n, n), dtype=np.float32, order="F")
    parts = [slice(start, min(n, start + block)) for start in range(0, n, block)]
    for part in parts:
        gram[:, part] = (columns[part] @ matrix).toarray().T
    gram[np.diag_indices(n)] += np.float32(l2)
    if not invert_in_place(gram):
        raise DataError(
            f"ease cannot invert the matrix of {n} items with architecture.l2={l2:g}; raise it."
        )
    for part in parts:  # only the lower triangle was written
        square = np.tril(gram[part, part])
        gram[part, part] = square + np.tril(square, -1).T
        gram[part, part.stop :] = gram[part.stop :, part].T
    # symmetric, so that the transpose is the same with rows one after the other
    symmetric: Floats = gram.T
    return symmetric


def invert_in_place(matrix: Floats) -> bool:
    """Writes the inverse of a positive definite matrix into its lower triangle.

    Args:
        matrix: (n, n) in the order of Fortran; only its lower triangle is read.

    Returns:
        Whether it could be done: in float32 the matrix may not be positive definite.
    """
    from scipy.linalg.lapack import spotrf, spotri

    factor, failed = spotrf(matrix, lower=1, overwrite_a=1, clean=0)
    if not failed:
        _, failed = spotri(factor, lower=1, overwrite_c=1)
    return not failed


@dataclass(frozen=True)
class EventSide:
    """P over the catalog: that of the items seen in training, and 1 / l2 in a row of its own.

    An item that training has not seen shares no user with another one, so that the inverse falls
    apart into the seen items and a diagonal.

    Attributes:
        inverse: (n, n) P of the seen items, mapped from disk or not.
        seen: (n,) their catalog rows.
        known: (I,) 1 for a seen item, 0 for another.
        diagonal: (I,) the diagonal of P.
        projected: (I, D) P V; None without item vectors.
    """

    inverse: Floats
    seen: Ints
    known: Floats
    diagonal: Floats
    projected: Floats | None

    @classmethod
    def compute(
        cls, inverse: Floats, seen: Ints, items: int, l2: float, vectors: Floats | None
    ) -> EventSide:
        """Of the inverse.

        Args:
            inverse: (n, n).
            seen: (n,).
            items: I.
            l2: The penalty.
            vectors: V (I, D), or None.
        """
        known = np.zeros(items, dtype=np.float32)
        known[seen] = 1
        diagonal = np.full(items, 1 / l2, dtype=np.float32)
        diagonal[seen] = np.diagonal(inverse)
        projected = None
        if vectors is not None:
            projected = vectors / np.float32(l2)
            projected[seen] = inverse @ np.ascontiguousarray(vectors[seen])
        return cls(inverse, seen, known, diagonal, projected)

    def weigh_history(self, had: csr_matrix) -> Floats:
        """X P of histories X (Q, I): (Q, I)."""
        out: Floats = (had.multiply(self.diagonal)).toarray().astype(np.float32, copy=False)
        out[:, self.seen] = had[:, self.seen] @ self.inverse
        return out

    def project_history(self, had: csr_matrix) -> Floats:
        """X P V of histories X (Q, I): (Q, D)."""
        out: Floats = had @ self.projected
        return out


@dataclass(frozen=True)
class TextSide:
    """C, the weights of EASE where each of D dimensions is a user: low rank off its diagonal.

    With M the inverse of text_l2 I + V^T V and h_j = v_j M v_j, the inverse of V V^T + text_l2 I is
    (I - V M V^T) / text_l2 (Woodbury): C_ij is v_i M v_j / (1 - h_j), and 0 on the diagonal.

    Attributes:
        weights: (D, I) M v_j / (1 - h_j).
        leverage: (I,) h_j / (1 - h_j), what the low-rank product has on the diagonal.
    """

    weights: Floats
    leverage: Floats

    @classmethod
    def compute(cls, vectors: Floats, l2: float) -> TextSide:
        """Of item vectors V (I, D), in double precision."""
        items, width = vectors.shape
        blocks = [slice(start, start + _BLOCK) for start in range(0, items, _BLOCK)]
        gram = l2 * np.eye(width)
        for part in blocks:
            block = vectors[part].astype(np.float64)
            gram += block.T @ block
        inverse = np.linalg.inv(gram)
        weights = np.empty((width, items), dtype=np.float32)
        leverage = np.empty(items, dtype=np.float32)
        for part in blocks:
            block = vectors[part].astype(np.float64)
            product = block @ inverse
            own = (product * block).sum(1)
            weights[:, part] = (product / (1 - own)[:, None]).T
            leverage[part] = own / (1 - own)
        return cls(weights, leverage)


def compute_penalty(events: EventSide, text: TextSide | None, rho: float) -> Floats:
    """What stands before a history's own P in its scores, so that the weights' diagonal is zero.

    The weights are B = P (G + rho C + diag(gamma)), of which Moon et al. (L3AE, CIKM 2025) have the
    case l2 = lambda + rho. As P G = I - l2 P, they are I - P diag(c) + rho P C with
    c_j = (1 + rho (P C)_jj) / P_jj, and of histories X their scores are
    X - (X P)_j (c_j + rho h_j / (1 - h_j)) + rho (X P V) M v_j / (1 - h_j). Of an item that
    training has not seen, X is (X P)_j c_j, and both are left out.

    Args:
        events: P.
        text: C, or None for rho = 0, which is the plain EASE.
        rho: The pull.

    Returns:
        (I,) what X P is multiplied with in that line.
    """
    diagonal = events.diagonal
    penalty: Floats = events.known / diagonal
    if text is None or not rho:
        return penalty
    assert events.projected is not None
    # (P C)_jj: the low-rank product, less what it has on the diagonal of C
    pulled: Floats = np.einsum("jd,dj->j", events.projected, text.weights)
    pulled -= diagonal * text.leverage
    penalty += np.float32(rho) * (events.known * pulled / diagonal + text.leverage)
    return penalty


class RecentResults:
    """Keeps the last results of something that is asked for several times in a row.

    Args:
        size: How many of a kind.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[str, OrderedDict[Hashable, object]] = {}

    def get(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """The result of a kind by its key, made where it is not kept."""
        kept = self._kept.setdefault(kind, OrderedDict())
        if key not in kept:
            while len(kept) >= self._size:
                kept.popitem(last=False)
            kept[key] = make()
        kept.move_to_end(key)
        return kept[key]  # type: ignore[return-value]


class ClosedForm:
    """Scores of histories under EASE of the events, with a pull towards EASE of item vectors.

    Args:
        events: P.
        text: C; None, or any with rho = 0: the plain EASE.
        rho: The pull.
        recency: The weight of an event is exp(-recency) to the power of its distance from the
            latest.
        kept: Shared by forms of the same events that score the same queries in turn.
    """

    def __init__(
        self,
        events: EventSide,
        text: TextSide | None,
        rho: float,
        recency: float,
        kept: RecentResults | None = None,
    ) -> None:
        self.events, self.rho, self.recency = events, rho, recency
        self.text = text if rho else None
        self.penalty = torch.from_numpy(compute_penalty(events, self.text, rho))
        self._kept = kept

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores of histories, or of the vector of an item that is all of a history.

        Args:
            queries: (Q, H) catalog rows, -1 for none, or (Q, D) vectors.
            items: (N,) catalog rows.

        Returns:
            (Q, N) float32, where the queries are.
        """
        of_text = queries.is_floating_point()
        scores = self._score_vectors(queries) if of_text else self._score_rows(queries)
        columns = items.cpu()
        whole = torch.arange(scores.shape[1])
        if not torch.equal(columns, whole):  # a copy of all scores
            scores = scores[:, columns]
        return scores.to(queries.device)

    def _score_vectors(self, vectors: Tensor) -> Tensor:
        """(Q, I) scores where a cold item with this vector is the history: rho v M v_j / (1 - h_j).

        Its row of P is 1 / l2, which all scores have in common and is left out.
        """
        assert self.text is not None
        return self.rho * torch.from_numpy(vectors.cpu().numpy() @ self.text.weights)

    def _score_rows(self, rows: Tensor) -> Tensor:
        """(Q, I) scores of histories."""
        key = (self.recency, tuple(rows.shape), rows.cpu().numpy().tobytes())
        had, weighed = self._keep("history", key, lambda: self._weigh(rows))
        product = None
        if self.text is not None:
            product = self._keep("text", (id(self.text), *key), lambda: self._multiply(had))
        return self._add(had, weighed, product)

    def split(self, queries: Tensor, own: Tensor, items: Tensor) -> Tensor:
        """What items (U,) of a single history (1, H) add to scores of items (N,): (N, U)."""
        had = split_history(self._make_matrix(queries), own)
        product = None if self.text is None else self._multiply(had)
        weighed = torch.from_numpy(self.events.weigh_history(had))
        return self._add(had, weighed, product)[:, items.cpu()].T.to(items.device)

    def make_weights(self) -> EaseWeights:
        """What the weights between items are made of."""
        text, events = self.text, self.events
        return EaseWeights(
            events.inverse,
            events.seen,
            self.penalty.numpy(),
            self.rho,
            None if text is None else events.projected,
            None if text is None else text.weights,
        )

    def _add(self, had: csr_matrix, weighed: Tensor, product: Tensor | None) -> Tensor:
        """(Q, I) scores of X, X P and what the text side makes of X."""
        if product is None:
            scores = weighed * -self.penalty
        else:
            scores = (self.rho * product).addcmul_(weighed, self.penalty, value=-1)
        query, item = (torch.from_numpy(each).long() for each in had.tocoo().coords)
        scores[query, item] += torch.from_numpy(had.data * self.events.known[item.numpy()])
        return scores

    def _keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        return make() if self._kept is None else self._kept.get(kind, key, make)

    def _weigh(self, rows: Tensor) -> tuple[csr_matrix, Tensor]:
        """Histories X (Q, I) as a sparse matrix, and X P."""
        had = self._make_matrix(rows)
        return had, torch.from_numpy(self.events.weigh_history(had))

    def _make_matrix(self, rows: Tensor) -> csr_matrix:
        """Histories X (Q, I)."""
        return make_history_matrix(rows, len(self.events.diagonal), self.recency, binary=True)

    def _multiply(self, had: csr_matrix) -> Tensor:
        """(X P V) M v_j / (1 - h_j) of histories X (Q, I): (Q, I)."""
        assert self.text is not None
        projected = torch.from_numpy(self.events.project_history(had))
        return projected @ torch.from_numpy(self.text.weights)
