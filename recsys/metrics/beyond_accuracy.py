"""What accuracy does not say of recommended lists: variety, novelty, popularity, calibration.

All functions take `top` (Q, k): catalog rows of the best items of each case, best first, -1 where
there are no more. Values are float64; NaN where a case does not define them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KINDS = 1000
"""Most categories: a column with more of them names items, not kinds."""
SMOOTHING = 0.01
"""Share of the history's distribution in the smoothed one of the list (Steck 2018, section 3.1)."""


def count_exposure(top: Ints, items: int) -> Ints:
    """(items,) how often each item of the catalog is recommended."""
    return np.bincount(top[top >= 0], minlength=items)


def compute_coverage(shown: Ints) -> float:
    """Share of the catalog that is recommended to anyone.

    Herlocker et al., Evaluating Collaborative Filtering Recommender Systems (TOIS 2004).

    Args:
        shown: (I,) as `count_exposure` gives it.
    """
    return float((shown > 0).mean())


def compute_gini(shown: Ints) -> float:
    """Gini coefficient of the exposure: 0 if all items are shown alike, near 1 if one alone is.

    Fleder and Hosanagar, Blockbuster Culture's Next Rise or Fall (Management Science 2009).

    Args:
        shown: (I,) as `count_exposure` gives it.
    """
    total, n = int(shown.sum()), len(shown)
    if not total:
        return float("nan")
    rank = 2 * np.arange(1, n + 1) - n - 1
    return float((rank * np.sort(shown).astype(np.float64)).sum() / (n * total))


def compute_information(counts: Ints) -> Floats:
    """(I,) bits of surprise: -log2 of each item's share of the training events.

    Zhou et al., Solving the apparent diversity-accuracy dilemma (PNAS 2010), with shares of events.
    One event is added to each item, as the share of one that training never shows would be 0.

    Args:
        counts: (I,) training events of each item.
    """
    share = (counts + 1.0) / (counts.sum() + len(counts))
    out: Floats = -np.log2(share)
    return out


def compute_list_means(worth: Floats, top: Ints) -> Floats:
    """(Q,) mean over each list of what its items are worth (I,): their novelty or popularity."""
    return _divide(_sum_worth(worth, top), (top >= 0).sum(1))


def compute_ragged_means(worth: Floats, owner: Ints, items: Ints, cases: int) -> Floats:
    """(cases,) the same over histories.

    Args:
        worth: (I,) what each item is worth.
        owner: (N,) place of the case of each event of a history.
        items: (N,) its catalog row.
        cases: Q.
    """
    total = np.bincount(owner, worth[items], minlength=cases)
    return _divide(total.astype(np.float64), np.bincount(owner, minlength=cases))


def compute_diversity(top: Ints, vectors: csr_matrix) -> Floats:
    """(Q,) 1 minus the mean cosine over all pairs of a list; NaN with fewer than two items.

    Ziegler et al., Improving Recommendation Lists Through Topic Diversification (WWW 2005).

    Args:
        top: (Q, k).
        vectors: (I, words) of length 1 or 0; the same for every method that is compared.
    """
    own = np.asarray(vectors.multiply(vectors).sum(1)).ravel()
    total = (_make_indicators(top, vectors.shape[0]) @ vectors).tocsr()
    # The squared length of a sum is the sum over all pairs, each item with itself included.
    pairs = np.asarray(total.multiply(total).sum(1)).ravel() - _sum_worth(own, top)
    size = (top >= 0).sum(1)
    return 1 - _divide(pairs.astype(np.float64), size * (size - 1))


def parse_categories(values: pl.Series) -> list[list[str]]:
    """The categories of each item, each once: those of `a|b` are a and b.

    Raises:
        ConfigError: There are more categories than kinds of anything.
    """
    lists = values.cast(pl.String).fill_null("").str.split("|").to_list()
    kinds = [list(dict.fromkeys(k for word in each if (k := word.strip()))) for each in lists]
    count = len({kind for each in kinds for kind in each})
    if count > KINDS:
        raise ConfigError(
            f"evaluation.category: column '{values.name}' holds {count} categories; use one with "
            f"at most {KINDS}."
        )
    return kinds


def compute_category_shares(kinds: list[list[str]]) -> csr_matrix:
    """(I, G) shares of each item's categories, all equal and adding up to 1; none without one.

    Args:
        kinds: As `parse_categories` gives them.
    """
    from scipy.sparse import csr_matrix

    place = {kind: at for at, kind in enumerate(sorted({k for each in kinds for k in each}))}
    sizes = np.array([len(each) for each in kinds])
    columns = np.array([place[kind] for each in kinds for kind in each], dtype=np.int64)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    part = np.repeat(1 / np.maximum(sizes, 1), sizes)
    return csr_matrix((part, columns, ends), shape=(len(kinds), len(place)))


def compute_calibration(top: Ints, wanted: Floats, categories: csr_matrix) -> Floats:
    """(Q,) divergence in nats of a list's categories from the history's; 0 is calibrated.

    Kullback-Leibler divergence of the history's distribution from the list's, which is smoothed
    with 0.01 of the former: Steck, Calibrated Recommendations (RecSys 2018), equations 2 to 5,
    with equal weights within history and list.

    Args:
        top: (Q, k).
        wanted: (Q, G) how much of each category the history holds, in any unit.
        categories: As `compute_category_shares` gives them.

    Returns:
        NaN where the history or the list has no item with a category.
    """
    given = (_make_indicators(top, categories.shape[0]) @ categories).toarray()
    both = (wanted.sum(1) > 0) & (given.sum(1) > 0)
    p = _divide(wanted, wanted.sum(1, keepdims=True))
    q = (1 - SMOOTHING) * _divide(given, given.sum(1, keepdims=True)) + SMOOTHING * p
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log(p / q), 0.0)
    return np.where(both, parts.sum(1), np.nan)


def compute_mean(values: Floats) -> float:
    """Mean over the cases that define it, NaN where none does."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _make_indicators(top: Ints, items: int) -> csr_matrix:
    """(Q, items) 1 for each item of a list."""
    from scipy.sparse import csr_matrix

    there = top >= 0
    ends = np.concatenate([[0], np.cumsum(there.sum(1))])
    return csr_matrix((np.ones(ends[-1]), top[there], ends), shape=(len(top), items))


def _sum_worth(worth: Floats, top: Ints) -> Floats:
    out: Floats = np.where(top >= 0, worth[np.maximum(top, 0)], 0.0).sum(1)
    return out


def _divide(part: Floats, whole: Floats | Ints) -> Floats:
    """The quotient, NaN where the divisor is 0."""
    divisor = np.where(whole > 0, whole, 1)
    return np.where(whole > 0, part / divisor, np.nan)
