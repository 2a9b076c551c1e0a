"""What a comparison can show: the true difference found in four of five repetitions.

Bloom's (1995, "Minimum detectable effects") figure is a multiple of the standard error. With two
or three runs that is a promise nobody can keep: the standard error may by chance be far too
small, and so is the figure then. Here a repetition is drawn as a whole, from what the data leave
open: the variance of the runs, new runs of that variance, the spread that they would show, and
with it the bar that the test would set. The figure is the true difference at which the share
`POWER` of these repetitions passes its bar. It is a figure on the safe side: where runs make most
of the variance the share is met, where users do more of the repetitions find it.

Where most users have nothing, as with hits, a better method is one with more hits, and they
bring variance with them: that of the users is taken at the difference in question.
"""

from __future__ import annotations

import numpy as np

from recsys.compare.statistics.resampling import pool_degrees
from recsys.compare.statistics.variance import Array, Clusters, SeedVariance, VarianceComponents

POWER = 0.8
REPETITIONS = 128
HALVINGS = 18  # of a bracket: a part in 260,000 of it
ROUNDS = 4  # of the variance at the difference in question; its growth is a small part of it
NODES = 40  # of a spread's law; half of them in its upper tenth, down to `TAIL`
TAIL = 1e-6


def compute_detectable_difference(
    parts: VarianceComponents, size: float, extra: float, rng: np.random.Generator
) -> float:
    """The true difference that the test at `size` finds in about 80 % of repetitions or more.

    Args:
        parts: What was observed.
        size: Error rate of the test, two-sided.
        extra: How much the variance over users grows per unit of difference.
        rng: Of the repetitions.

    Returns:
        In the metric's unit; 0 where nothing varies.
    """
    if parts.variance == 0:
        return 0.0
    sources = [source for source in parts.seeds if source.spread > 0]
    true, shown = np.zeros(REPETITIONS), []
    if sources:
        total = sum(source.spread for source in sources)
        # Satterthwaite's: a doubt of the sum, not a bar that has to hold in every constellation.
        degrees = total**2 / sum(s.spread**2 / s.degrees for s in sources)
        doubt = _sample_chi_squared(degrees, rng)
    for source in sources:
        whole = np.maximum(source.spread / doubt, source.residual)
        true += whole - source.residual
        shown.append(whole * _sample_chi_squared(source.degrees, rng))
    users, found = parts.users, 0.0
    for _ in range(ROUNDS):
        found = _solve_difference(
            _compute_thresholds(users, sources, shown, size), np.sqrt(users + true)
        )
        grown = parts.users + extra * found
        if grown <= 1.02 * users:
            break
        users = grown
    return found


def compute_variance_growth(
    methods: list[Array], clusters: Clusters, parts: VarianceComponents
) -> float:
    """Variance over users that a method's further hits bring, per unit of the mean.

    Args:
        methods: The two methods' values by run and case, `(S, N)`.
        clusters: User of each case, `(N,)`.
        parts: Of their difference.

    Returns:
        Squares over sums of the users' totals, as further hits would be like those that are
        there; 0 where a value is negative or most users have one: then a difference is no matter
        of hits.
    """
    code = np.unique(clusters, return_inverse=True)[1]
    totals = np.array([np.bincount(code, values.mean(axis=0)) for values in methods])
    if min(values.min() for values in methods) < 0 or (totals > 0).mean() > 0.5:
        return 0.0
    mass = float(totals.sum())
    return float(np.square(totals).sum()) / (mass * float(parts.sizes.sum())) if mass else 0.0


def _sample_chi_squared(degrees: float, rng: np.random.Generator) -> Array:
    """Chi-squared / degrees, one draw from each of `REPETITIONS` equal parts of its law."""
    from scipy.special import gammaincinv

    chances = (rng.permutation(REPETITIONS) + 0.5) / REPETITIONS
    return np.asarray(gammaincinv(degrees / 2, chances), dtype=np.float64) / (degrees / 2)


def _solve_difference(bars: Array, deviations: Array) -> float:
    """True difference at which the share `POWER` of the repetitions passes its bar.

    A repetition passes where the difference and its normal error lie above the bar.
    """
    from scipy.special import ndtr

    low, high = 0.0, float((bars + 3 * deviations).max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        passed = float(ndtr((middle - bars) / deviations).mean())
        low, high = (middle, high) if passed < POWER else (low, middle)
    return high


def _compute_thresholds(
    users: float, sources: list[SeedVariance], shown: list[Array], size: float
) -> Array:
    """Difference from which on the test rejects, by repetition.

    Args:
        users: Variance over users.
        sources: Of the spread over runs.
        shown: The spreads that a repetition shows, one array a source.
        size: Error rate of the test.
    """
    from scipy.special import erfc, erfcinv

    if not sources:
        return np.full(REPETITIONS, float(erfcinv(size)) * np.sqrt(2 * users))
    variances, weights = _compute_variance_laws(sources, shown)
    scale = np.sqrt(2 * (users + variances))
    low, high = np.zeros(REPETITIONS), float(erfcinv(size)) * scale.max(axis=1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        p = erfc(middle[:, None] / scale) @ weights
        low, high = np.where(p > size, middle, low), np.where(p > size, high, middle)
    return np.asarray(high, dtype=np.float64)


def _compute_variance_laws(sources: list[SeedVariance], shown: list[Array]) -> tuple[Array, Array]:
    """Laws of the runs' variance as the test would draw it: nodes by repetition, and weights."""
    residual = sum(source.residual for source in sources)
    total = np.sum(shown, axis=0)
    if len({source.degrees for source in sources}) == 1:
        kinds = [
            [
                SeedVariance(float(spread), 0.0, s.degrees)
                for s, spread in zip(sources, each, strict=True)
            ]
            for each in np.transpose(shown)
        ]
        degrees = np.array([pool_degrees(kind) or sources[0].degrees for kind in kinds])
        rounded, place = np.unique(degrees.round(1), return_inverse=True)
        factors, weights = _compute_nodes(rounded, NODES)
        return np.maximum(total[:, None] * factors[place] - residual, 0.0), weights
    count = NODES // 3  # two laws are crossed
    laws, weight = [], np.ones(1)
    for source, spread in zip(sources, shown, strict=True):
        factors, weights = _compute_nodes(np.full(1, source.degrees), count)
        laws.append(np.maximum(spread[:, None] * factors - source.residual, 0.0))
        weight = np.outer(weight, weights).ravel()
    first, second = laws
    return (first[:, :, None] + second[:, None, :]).reshape(len(first), -1), weight


def _compute_nodes(degrees: Array, count: int) -> tuple[Array, Array]:
    """Nodes of degrees / chi-squared, `(len(degrees), count)`, and their weights, `(count,)`."""
    from scipy.special import gammaincinv

    half = count // 2
    tail, body = np.geomspace(TAIL, 0.1, half + 1), np.linspace(0.1, 1.0, count - half + 1)
    chances = np.concatenate([np.sqrt(tail[1:] * tail[:-1]), (body[1:] + body[:-1]) / 2])
    weights = np.concatenate([np.diff(tail), np.diff(body)])
    shape = degrees[:, None] / 2
    return shape / gammaincinv(shape, chances), weights / weights.sum()
