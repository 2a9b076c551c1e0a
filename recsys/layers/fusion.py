"""Scores of several rankers on one scale, and the ways to weigh them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Normalization = Literal["zscore", "minmax", "rank"]
"""How the scores of a query come to one scale."""


def rank_scores(scores: Tensor, closed: Tensor | None = None) -> Tensor:
    """The rank of each score in its row, 1 for the highest.

    Equal scores share the mean of their ranks, so that whatever is made of ranks leaves them equal.

    Args:
        scores: (..., N).
        closed: (..., N) bool, True for what is not ranked: it comes last.

    Returns:
        (..., N) float32.
    """
    if closed is not None:
        scores = scores.masked_fill(closed, -torch.inf)
    size = scores.shape[-1]
    values, columns = scores.sort(dim=-1, descending=True)
    place = torch.arange(size, device=scores.device).expand_as(columns)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[..., 1:] = values[..., 1:] != values[..., :-1]
    ends = torch.ones_like(starts)
    ends[..., :-1] = starts[..., 1:]
    first = torch.where(starts, place, 0).cummax(-1).values
    last = torch.where(ends, place, size).flip(-1).cummin(-1).values.flip(-1)
    middle = (first + last).float() / 2 + 1
    return torch.empty_like(middle).scatter_(-1, columns, middle)


def normalize_ranks(ranks: Tensor, k: float) -> Tensor:
    """1 / (k + rank), what a rank is worth in reciprocal rank fusion.

    Args:
        ranks: (...) from 1.
        k: The larger, the less the first ranks count before others.
    """
    return (k + ranks).reciprocal()


def normalize_scores(
    scores: Tensor, kind: Literal["zscore", "minmax"], closed: Tensor | None = None
) -> Tensor:
    """Scores of each row on a scale that those of other rankers have as well.

    Args:
        scores: (..., N).
        kind: `zscore`: mean 0 and standard deviation 1; `minmax`: from 0 to 1.
        closed: (..., N) bool, True for what has no part in mean, deviation and limits.

    Returns:
        (..., N) float32; 0 in a row whose scores are all equal.
    """
    open_ = torch.ones_like(scores) if closed is None else (~closed).to(scores.dtype)
    count = open_.sum(-1, keepdim=True).clamp(min=1)
    if kind == "zscore":
        middle = (scores * open_).sum(-1, keepdim=True) / count
        spread = ((scores - middle).square() * open_).sum(-1, keepdim=True).div(count).sqrt()
    else:
        inside = open_ > 0
        middle = scores.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
        spread = scores.masked_fill(~inside, -torch.inf).amax(-1, keepdim=True) - middle
    # Rounding leaves a spread to scores that are all equal, and dividing by it would make noise.
    flat = ~(spread > 1e-6 * middle.abs()) | ~spread.isfinite()
    return ((scores - middle) / spread.masked_fill(flat, 1.0)).masked_fill(flat, 0.0)


def fuse_reciprocal_ranks(ranks: Tensor, k: float) -> Tensor:
    """Reciprocal rank fusion (Cormack et al., SIGIR 2009): the sum of 1 / (k + rank).

    Args:
        ranks: (M, ...) of M rankers, from 1.
        k: As in `normalize_ranks`.

    Returns:
        (...) float32.
    """
    return normalize_ranks(ranks, k).sum(0)


def list_simplex_points(parts: int, most: int) -> Tensor:
    """Weights that are 0 or more and sum to 1: an even lattice, and all weights equal.

    Args:
        parts: M, how many weights a point has.
        most: How many points there may be; the lattice is as fine as that allows.

    Returns:
        (K, M) float32; each single weight alone is among them.
    """
    steps = 1
    while math.comb(steps + parts, parts - 1) <= most and parts > 1:
        steps += 1
    points: list[list[int]] = [[]]
    for _ in range(parts - 1):
        points = [[*head, n] for head in points for n in range(steps - sum(head) + 1)]
    lattice = torch.tensor([[*head, steps - sum(head)] for head in points]).float() / steps
    equal = torch.full((1, parts), 1 / parts)
    known = bool((lattice - equal).abs().amax(1).le(1e-6).any())
    return lattice if known else torch.cat([equal, lattice])
