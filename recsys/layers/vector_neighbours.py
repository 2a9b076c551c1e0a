"""The nearest items of each by their vectors, exactly, without a matrix of items x items."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

ROWS, COLUMNS = 1024, 8192
"""Items whose cosines to others are held at a time."""


def compute_vector_neighbours(
    vectors: Tensor,
    neighbours: int,
    report: Callable[[int], None] = lambda rows: None,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> csr_matrix:
    """By how much the nearest items of each are nearer than the nearest one that is left out.

    Cosines of texts are all high, and say little as they are: what counts is how far a neighbour
    stands out. At the edge the similarity falls to zero, so that one neighbour more or less changes
    little. It takes I^2 products of D numbers; equal cosines go by catalog row.

    Args:
        vectors: (I, D) fp32, of any length.
        neighbours: k, items kept of each, at most all but two.
        report: Called with the number of items that were done.
        rows: Items whose neighbours are looked for at a time.
        columns: Items that they are compared with at a time.

    Returns:
        (I, I) float32; row i holds the neighbours of item i, never itself.
    """
    from scipy.sparse import csr_matrix

    items = len(vectors)
    count = max(0, min(neighbours, items - 2))
    if not count:
        return csr_matrix((items, items), dtype="float32")
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    nearest, cosines = [], []
    for start in range(0, items, rows):
        place, cosine = _find_nearest(unit, start, min(items, start + rows), count + 1, columns)
        nearest.append(place[:, :count].int())
        cosines.append(cosine[:, :count] - cosine[:, count:])
        report(len(place))
    out = csr_matrix(
        (
            torch.cat(cosines).flatten().numpy(),
            torch.cat(nearest).flatten().numpy(),
            torch.arange(0, items * count + 1, count).numpy(),
        ),
        shape=(items, items),
    )
    out.eliminate_zeros()
    out.sort_indices()
    return out


def score_nearest(queries: Tensor, vectors: Tensor, neighbours: int) -> Tensor:
    """By how much the nearest items of vectors are nearer than the nearest one that is left out.

    As `compute_vector_neighbours` says of an item, for what is no item of the catalog.

    Args:
        queries: (Q, D) of any length.
        vectors: (I, D) of any length.
        neighbours: k, items that score above 0, at most all but one.

    Returns:
        (Q, I) float32.
    """
    count = max(0, min(neighbours, len(vectors) - 1))
    lengths = vectors.norm(dim=1).clamp(min=1e-12)
    cosines = torch.nn.functional.normalize(queries.float(), dim=1) @ vectors.T / lengths
    places, values = select_largest(cosines, count + 1)
    standing = values[:, :count] - values[:, count:]
    return torch.zeros_like(cosines).scatter_(1, places[:, :count], standing)


def _find_nearest(
    unit: Tensor, start: int, stop: int, count: int, columns: int
) -> tuple[Tensor, Tensor]:
    """The nearest of all items for some consecutive ones: rows and cosines, each (n, count)."""
    own = torch.arange(start, stop)
    places, values = torch.empty(len(own), 0, dtype=torch.long), unit.new_empty(len(own), 0)
    for first in range(0, len(unit), columns):
        last = min(len(unit), first + columns)
        cosines = unit[start:stop] @ unit[first:last].T
        inside = own[(own >= first) & (own < last)]
        cosines[inside - start, inside - first] = -torch.inf
        place, value = select_largest(cosines, min(count, last - first))
        places, values = torch.cat([places, place + first], 1), torch.cat([values, value], 1)
        # those of earlier blocks stand first, and so do the lower rows among equals
        values, order = values.sort(dim=1, descending=True, stable=True)
        places = places.gather(1, order)[:, :count]
        values = values[:, :count]
    return places, values


def select_largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Columns and values of the largest of each row, (n, count); among equals the first columns."""
    largest, columns = values.topk(count)
    # `topk` promises nothing about equals: rows where one was left out are done again
    tied = (values >= largest[:, -1:]).sum(1) > count
    if tied.any():
        order = values[tied].argsort(dim=1, descending=True, stable=True)[:, :count]
        columns[tied], largest[tied] = order, values[tied].gather(1, order)
    # within what was chosen: by value, then by column
    columns, order = columns.sort(dim=1)
    largest, by_value = largest.gather(1, order).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, by_value), largest
