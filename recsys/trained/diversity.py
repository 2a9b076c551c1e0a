"""Lists whose items are unlike each other: maximal marginal relevance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POOL = 100
"""Best items among which a list is chosen, at least."""
TIMES = 5
"""How many times as long as the list the pool is, at least."""


def count_pool(k: int) -> int:
    """How many of the best items a list of k is chosen from."""
    return max(POOL, TIMES * k)


def diversify(
    scores: NDArray[np.float32], cosines: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Places of the chosen items, in the order in which they are chosen.

    Maximal marginal relevance (Carbonell and Goldstein, The Use of MMR, Diversity-Based Reranking
    for Reordering Documents and Producing Summaries, SIGIR 1998) with lambda = 1 - diversity. The
    best item is first; then, one after the other, the item with the largest
    (1 - diversity) * relevance - diversity * (its largest cosine with an item that was chosen).

    Args:
        scores: (N,) of a pool, best first; relevance is the score scaled to [0, 1] in the pool.
        cosines: (N, N) of its items.
        k: How many; fewer where the pool has fewer.
        diversity: 0 to 1.
    """
    if not len(scores):
        return np.empty(0, dtype=np.int64)
    spread = scores.max() - scores.min()
    relevance = (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)
    chosen, nearest = [0], cosines[0].copy()
    free = np.ones(len(scores), dtype=bool)
    free[0] = False
    while len(chosen) < min(k, len(scores)):
        gain = (1 - diversity) * relevance - diversity * nearest
        place = int(np.where(free, gain, -np.inf).argmax())
        chosen.append(place)
        free[place] = False
        np.maximum(nearest, cosines[place], out=nearest)
    return np.array(chosen, dtype=np.int64)
