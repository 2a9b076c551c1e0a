"""Vectors in few bits: rounded to eight bits a number, or to one, which is its sign.

A row is rounded by itself, so that an item that is added later changes no other. In eight bits a
number is a whole one from -127 to 127, times a factor of its row. In one bit it is plus or minus a
factor of its row. The rows with the most signs in common with a query may also be a pool only,
which is scored again by more bits: Yamada et al., Efficient Passage Retrieval with Hashing for
Open-domain Question Answering (ACL 2021), section 2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Precision = Literal["fp32", "int8", "binary", "binary+int8"]
"""How the vectors of items are stored; the last one searches signs and scores a pool by int8."""

LARGEST = 127
"""The largest of the whole numbers; their range is symmetric, so that a sign costs nothing."""


def quantize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers, and the factor of each row.

    Args:
        vectors: (N, D) in floating point.

    Returns:
        (N, D) int8 and (N, 1) float32; a row of zeros has the factor 0.
    """
    factors = vectors.float().abs().amax(-1, keepdim=True) / LARGEST
    codes = vectors.float() / factors.clamp(min=torch.finfo(torch.float32).tiny)
    return codes.round().clamp(-LARGEST, LARGEST).to(torch.int8), factors


def restore(codes: Tensor, factors: Tensor) -> Tensor:
    """(N, D) float32 vectors of whole numbers (N, D) and factors (N, 1)."""
    return codes.float() * factors


def round_rows(vectors: Tensor, precision: Precision) -> Tensor:
    """(N, D) float32 vectors (N, D) as they are once they were stored.

    Signs keep the length of a vector.
    """
    if precision == "fp32":
        return vectors.float()
    if precision == "binary":
        factors = vectors.float().norm(dim=-1, keepdim=True) / vectors.shape[-1] ** 0.5
        signs: Tensor = take_signs(vectors) * factors
        return signs
    return restore(*quantize(vectors))


def take_signs(vectors: Tensor) -> Tensor:
    """(N, D) float32, 1 for a number above 0 and -1 for the others."""
    ones = torch.ones_like(vectors, dtype=torch.float32)
    return ones.where(vectors > 0, -ones)


def count_common_signs(queries: Tensor, items: Tensor) -> Tensor:
    """(Q, N) in how many of D places queries (Q, D) and items (N, D) have the same sign.

    It is D less the Hamming distance of their signs; a zero counts as negative.
    """
    width = queries.shape[-1]
    # A sum of D ones and minus ones, which float32 holds exactly.
    return (take_signs(queries) @ take_signs(items).T + width) / 2


def score_pool(queries: Tensor, items: Tensor, scores: Tensor, pool: int) -> Tensor:
    """Scores of the best by their signs, and below them all others in the order of their signs.

    Args:
        queries: (Q, D).
        items: (N, D).
        scores: (Q, N) by more bits.
        pool: How many of a query's items keep theirs; of equal ones the first.

    Returns:
        (Q, N), such that no item outside the pool is above one inside.
    """
    common = count_common_signs(queries, items)
    if pool >= common.shape[1]:
        return scores
    inside = common.sort(dim=1, descending=True, stable=True).indices[:, :pool]
    kept = scores.gather(1, inside)
    # Below the least of the pool by a whole step a sign, so that ranks outside are the signs' own.
    outside = kept.amin(1, keepdim=True) - 1 - (common.amax(1, keepdim=True) - common)
    return outside.scatter(1, inside, kept)


def count_bytes(precision: Precision, width: int) -> int:
    """Bytes of an item's vector of `width` numbers, the factor of its row included."""
    signs, whole = -(-width // 8), width + 4
    sizes = {
        "fp32": width * 4,
        "int8": whole,
        "binary": signs + 4,
        "binary+int8": signs + whole,
    }
    return sizes[precision]
