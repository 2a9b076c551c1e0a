"""The nearest rows of an index for queries, without a matrix of queries x rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from recsys.layers.vector_neighbours import select_largest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BLOCK = 1 << 24
"""Similarities that are held at a time."""


class QueryIndex(Protocol):
    """Rows that queries are compared with."""

    def __len__(self) -> int: ...

    def compare(self, queries: Tensor, rows: slice) -> Tensor:
        """(Q, ...) queries with some consecutive rows, (Q, n)."""
        ...


class VectorIndex:
    """Cosines of vectors.

    Args:
        vectors: (N, D) of any length.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def compare(self, queries: Tensor, rows: slice) -> Tensor:
        """(Q, D) -> (Q, n) cosines; 0 with a vector of zeros."""
        unit = torch.nn.functional.normalize(queries.float(), dim=1)
        own = self.vectors[rows].float()
        return unit @ torch.nn.functional.normalize(own, dim=1).T


class WordIndex:
    """Products of sparse rows, which have length 1 where they have words.

    Args:
        rows: (N, words).
    """

    def __init__(self, rows: csr_matrix) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def compare(self, queries: Tensor, rows: slice) -> Tensor:
        """(Q, words) -> (Q, n) products."""
        from scipy.sparse import csr_matrix

        asked = csr_matrix(queries.numpy())  # a text has few of all words
        return torch.from_numpy((asked @ self.rows[rows].T).toarray())


def find_nearest(
    index: QueryIndex,
    queries: Tensor,
    count: int,
    owners: Tensor,
    users: Tensor,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """The rows most similar to each query, best first, those of the query's own user left out.

    Equal similarities go by row: the same on every machine.

    Args:
        index: The rows.
        queries: (Q, ...) as the index compares them.
        count: k, rows of each query.
        owners: (N,) user of each row.
        users: (Q,) user of each query, -1 for someone unknown.
        block: Similarities held at a time; those of one row and all queries, at least.

    Returns:
        Rows, -1 where there are no more, and similarities, (Q, k) each; only such as are above 0.
    """
    places = torch.empty(len(queries), 0, dtype=torch.long)
    values = torch.empty(len(queries), 0)
    for rows in _iter_slices(len(index), max(1, block // max(1, len(queries)))):
        similar = index.compare(queries, rows)
        own = owners[rows]
        similar[(own == users[:, None]) & (users[:, None] >= 0)] = -torch.inf
        place, value = select_largest(similar, min(count, similar.shape[1]))
        places, values = torch.cat([places, place + rows.start], 1), torch.cat([values, value], 1)
        # those of earlier blocks stand first, and so do the lower rows among equals
        values, order = values.sort(dim=1, descending=True, stable=True)
        places, values = places.gather(1, order)[:, :count], values[:, :count]
    missing = count - places.shape[1]
    places = torch.nn.functional.pad(places, (0, missing), value=-1)
    values = torch.nn.functional.pad(values, (0, missing))
    return places.masked_fill(values <= 0, -1), values.clamp(min=0)


def _iter_slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(length, start + size))
