"""Small arithmetic on arrays of rows, shared by examples and their plans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def sample(at: Ints, limit: int | None, seed: int) -> Ints:
    """At most `limit` of the numbers, drawn from the seed, in their order."""
    if limit is None or limit >= len(at):
        return at
    return np.sort(np.random.default_rng([seed, 2]).permutation(at)[:limit])


def expand_sizes(sizes: Ints) -> tuple[Ints, Ints]:
    """Owner and place within it, each (sum of sizes,), of ragged elements in a row."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
