"""Item-item models of a sparse matrix of users and items: neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]

BLOCK = 1 << 21
"""Similarities that are held at a time, at most; a single item may have as many as the catalog."""


def compute_cosine_neighbours(
    matrix: csr_matrix, neighbours: int, shrink: float, block: int = BLOCK
) -> csr_matrix:
    """The most similar items of each item, by the cosine of their columns.

    Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms (WWW 2001); the
    shrinkage of similarities with little support follows Bell and Koren, Scalable Collaborative
    Filtering with Jointly Derived Neighborhood Interpolation Weights (ICDM 2007), as a constant in
    the denominator. Equal similarities go by catalog row: the same on every machine.

    Args:
        matrix: (users, I) non-negative.
        neighbours: k, similar items kept of each item.
        shrink: Added to the product of both norms.
        block: Similarities held at a time.

    Returns:
        (I, I) float32; row j holds item j's neighbours, never itself.
    """
    from scipy.sparse import vstack

    columns = matrix.T.tocsr()
    squares = compute_squares(matrix)
    parts = [
        select_neighbours(columns[part] @ matrix, part, squares, neighbours, shrink)
        for part in iter_slices(_count_products(matrix, columns), block)
    ]
    out: csr_matrix = vstack(parts, format="csr", dtype=np.float32)
    return out


def compute_squares(matrix: csr_matrix) -> npt.NDArray[np.float64]:
    """(I,) squared length of each column of a matrix (users, I)."""
    each = np.square(matrix.data, dtype=np.float64)
    return np.bincount(matrix.indices, each, matrix.shape[1]).astype(np.float64)


def _count_products(matrix: csr_matrix, columns: csr_matrix) -> npt.NDArray[np.float64]:
    """(I,) how many items each item may be similar to, at most.

    They are what its users had: no more than the sum of their lengths.
    """
    lengths = np.diff(matrix.indptr).astype(np.float64)
    owner = np.repeat(np.arange(columns.shape[0]), np.diff(columns.indptr))
    reach = np.bincount(owner, weights=lengths[columns.indices], minlength=columns.shape[0])
    most: npt.NDArray[np.float64] = np.minimum(reach, columns.shape[0])
    return most


def iter_slices(
    sizes: npt.NDArray[np.float64] | npt.NDArray[np.int64], most: int
) -> Iterator[slice]:
    """Consecutive places whose sizes together are at most `most`, at least one place."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def select_neighbours(
    products: csr_matrix, part: slice, squares: npt.NDArray[np.float64], k: int, shrink: float
) -> csr_matrix:
    """The largest k similarities of each of some items, by what they have in common with all.

    Args:
        products: (n, I) what each has in common with each item.
        part: Which items these are.
        squares: (I,) squared length of each item's column.
        k: Similar items kept of each, never itself.
        shrink: Added to the product of both norms.
    """
    from scipy.sparse import csr_matrix

    products.sort_indices()
    item = np.repeat(np.arange(part.start, part.stop), np.diff(products.indptr))
    other, value = products.indices, products.data.astype(np.float64)
    keep = (other != item) & (value > 0)
    item, other, value = item[keep], other[keep], value[keep]
    # one root of a product of whole numbers: what is equal comes out equal
    value = value / (np.sqrt(squares[item] * squares[other]) + shrink)
    # a stable sort leaves equal similarities in the order of catalog rows
    order = np.lexsort((-value, item))
    first = np.searchsorted(item[order], item[order])
    chosen = order[np.arange(len(order)) - first < k]
    data = value[chosen].astype(np.float32)
    shape = (part.stop - part.start, products.shape[1])
    out = csr_matrix((data, (item[chosen] - part.start, other[chosen])), shape=shape)
    out.sort_indices()
    return out
