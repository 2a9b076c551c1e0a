"""The target among a few random items: quick, and another measure than a rank in the catalog."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.data.batches.examples import Examples
from recsys.data.batches.rows import CandidateLists
from recsys.data.columns.arrays import Ints
from recsys.errors import ConfigError

By = Literal["uniform", "popularity"]

CAUTION = (
    "sampled metrics rank the target among {n} random items. They are not estimates of the ranks "
    "among all items and can put methods into another order: a few samples hardly tell places near "
    "the top apart, so that doing tolerably everywhere counts for more than the very top (Krichene "
    "and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020); do not set them beside "
    "figures of the whole catalog."
)


def make_sampled_lists(
    examples: Examples, at: Ints, n: int, by: By, mask_history: bool
) -> CandidateLists:
    """The target and `n` different random items, drawn from the case's number alone.

    So every method, seed and process ranks the same lists of a data set. What cannot be had at the
    time of a case is not drawn for it, nor what was chosen together with its target.

    Args:
        examples: Queries and cases.
        at: (N,) event numbers of the cases.
        n: Items to rank with the target.
        by: Every item alike, or in proportion to its training positives: the chance of the next
            draw among what is left (an item that training never shows is never drawn).
        mask_history: Draw nothing that the user had before the case.

    Returns:
        Lists of 1 + n, the target first, which says nothing, since ties count as in random order.

    Raises:
        ConfigError: A case has fewer than `n` items to draw from.
    """
    split, target = examples.split, examples.make_case_rows(at).candidates[:, 0]
    starts = split.compute_history_starts()[at]
    begins = split.offsets[np.searchsorted(split.offsets, at, side="right") - 1]
    counts = examples.count_train_items().astype(np.float64)
    pool: Ints = np.arange(examples.items)
    weight = np.ones(len(pool))
    if by == "popularity":
        pool = np.flatnonzero(counts > 0)
        weight = counts[pool]
    place = np.full(examples.items, -1, dtype=np.int64)
    place[pool] = np.arange(len(pool))
    out = np.empty((len(at), 1 + n), dtype=np.int64)
    out[:, 0] = target
    labels = np.zeros(out.shape, dtype=np.float32)
    labels[:, 0] = 1
    basket = examples.list_basket_items(at)
    bounds = np.searchsorted(basket[:, 0], np.arange(len(at) + 1))
    for case in range(len(at)):
        had = split.item[begins[case] : starts[case]] if mask_history else split.item[:0]
        had = np.append(had, basket[bounds[case] : bounds[case + 1], 1])
        if split.windows is not None:
            had = np.append(had, split.windows.list_unavailable_in(int(at[case])))
        without = place[np.unique(np.append(had, target[case]))]
        without = without[without >= 0]
        if len(pool) - len(without) < n:
            raise ConfigError(
                f"evaluation.sampled_negatives is {n}, and a case has only "
                f"{len(pool) - len(without)} items to draw from; use fewer."
            )
        rng = np.random.default_rng([int(at[case]), 3])
        out[case, 1:] = pool[_sample_without(rng, weight, without, n, by)]
    return CandidateLists(at, out, labels, np.zeros(len(at), dtype=np.bool_))


def _sample_without(
    rng: np.random.Generator, weight: NDArray[np.float64], without: Ints, n: int, by: By
) -> Ints:
    """`n` different places of the pool, none of `without`."""
    if by == "uniform":
        # More than enough different ones, in random order: those that are left are uniform.
        drawn = rng.choice(len(weight), size=n + len(without), replace=False)
        return drawn[~np.isin(drawn, without)][:n]
    # The first n of an exponential race are n weighted draws without replacement.
    race = rng.standard_exponential(len(weight)) / weight
    race[without] = np.inf
    return np.argpartition(race, n - 1)[:n]
