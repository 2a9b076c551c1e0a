"""Whether an explanation names what a list of recommendations depends on.

The measures of list explanations in CFExpRec (github.com/L2R-UET/CFExpRec, a benchmark of
counterfactual explanations of recommenders): items of the history are removed, and the list before
is compared with the one after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Ranking = Sequence[int]
"""Catalog rows of a list, the best first."""

STEPS = 10
"""Parts in which a history is removed for POS-P and NEG-P."""


def compute_replaced_share(before: Ranking, after: Ranking) -> float:
    """PN-S: the share of a list that is other items once an explanation is removed.

    Args:
        before: K items.
        after: K items.

    Returns:
        From 0, nothing changed, to 1, everything; more is more necessary.
    """
    return len(set(after) - set(before)) / len(before)


def compute_replaced_gain(before: Ranking, after: Ranking) -> float:
    """PN-R: the same, an item at rank r weighing 1 / log2(r + 1), over the sum of all weights."""
    weights = [1 / math.log2(rank + 2) for rank in range(len(before))]
    own = set(before)
    return sum(w for w, item in zip(weights, after, strict=True) if item not in own) / sum(weights)


def compute_kept_share(
    before: Ranking, order: Sequence[int], rank: Callable[[Sequence[int]], Ranking]
) -> float:
    """POS-P, and NEG-P of the order reversed: what is left of a list as a history is removed.

    Args:
        before: K items.
        order: The history as an explanation ranks it: first what speaks most for the list (POS-P:
            low is faithful), or first what speaks least for it (NEG-P: high is faithful).
        rank: Gives K items without some of the history.

    Returns:
        The mean share over `STEPS` even steps, at the last of which everything is removed; steps
        that a history is too short for repeat the one before.
    """
    base, more = divmod(len(order), STEPS)
    sizes = [base * (step + 1) + min(step + 1, more) for step in range(STEPS)]
    kept = {
        size: 1 - compute_replaced_share(before, rank(order[:size]))
        for size in dict.fromkeys(sizes)
    }
    return sum(kept[size] for size in sizes) / STEPS
