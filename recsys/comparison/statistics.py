"""Whether a difference between two methods is more than the luck of seeds and of users.

A claim about *methods* has to hold for other seeds and for other users, so intervals and tests
take both as random; users are the clusters of cases (a user's impressions are no independent
evidence). `statparts` says where the variance comes from, `statdraws` how the reference
distributions are drawn; `benchmarks/quality/simulation.py` measures coverage, size and power.

*Statistic.* Difference / standard error, the variance being that over users plus, for each
method, that over its runs less what users x runs explain (counted in both; see `statparts`).
The mean is over cases, so its error is linearised: a user's share is the sum of his
differences less the mean times his cases.

*Interval.* Users are drawn with replacement and runs are drawn anew; each drawn error is
divided by the standard error of its own draw, and the quantiles of this ratio, times the
observed standard error, are added to the difference. With two or three runs this widens the
interval as Student's t does (see `statdraws` for the reasons and the sources).

*Test.* The signs of the users' differences are flipped at random instead, as the null
hypothesis allows, with the runs drawn anew beside them. Without spread over runs it is the
plain randomisation test; with it, two groups of runs of one method differ at 5 % in about 5 %
of all cases, as they should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.comparison.statdraws import (
    Draws,
    beyond,
    bootstrap,
    flips,
    share,
    studentised,
)
from recsys.comparison.statparts import Array, Clusters, Parts, checked, defined, parts
from recsys.errors import DataError

POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A method's mean over seeds and cases, with its interval.

    Attributes:
        mean: Mean over runs and cases, in the metric's unit.
        low: Lower end of the interval; of one run it covers that run's model on other users.
        high: Upper end of the interval.
        level: Coverage of the interval, 0 to 1.
    """

    mean: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Contrast:
    """The difference of method a to method b, and what the data can say about it.

    Attributes:
        difference: a - b, mean over seeds and cases, in the metric's unit.
        low: Lower end of the interval, from a bootstrap over seeds and users at once.
        high: Upper end of the interval.
        level: Coverage of the interval, 0 to 1.
        p: Two-sided p of the studentised sign-flip test.
        effect: Mean over users of a user's difference (averaged over cases and seeds), divided by
            its standard deviation over users (Cohen's d_z); infinite where all differ alike.
        smallest: The smallest true difference that these seeds and users find in about 80 % of all
            repetitions with a two-sided test of the size asked for, in the metric's unit. It takes
            the variance as it is: 66 to 82 % were measured, but 59 to 69 % at a hit rate of 2 %,
            whose variance grows with the rate.
        equivalent: p of two one-sided tests against the margin (Schuirmann 1987): under 0.05, the
            methods differ by less than the margin. None without a margin.
        seeds: Runs of a and of b.
        cases: Cases compared: those with a value in every run of both.
        clusters: Users among them.
        about: "methods", or "models" where either side has one run and nothing is known of its
            spread over seeds: then another seed may turn the finding.
    """

    difference: float
    low: float
    high: float
    level: float
    p: float
    effect: float
    smallest: float
    equivalent: float | None
    seeds: tuple[int, int]
    cases: int
    clusters: int
    about: Literal["methods", "models"]


def estimate(
    values: Array, clusters: Clusters, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """A method's mean with an interval from a bootstrap over seeds and users at once.

    Args:
        values: Metric by run and case, `(S, N)`; NaN where it is not defined. A case with NaN in
            any run is left out.
        clusters: User of each case, `(N,)`, whole numbers.
        level: Coverage of the interval, 0 to 1.
        draws: Draws of the users.
        seed: Of the draws.

    Raises:
        DataError: Shapes that do not fit, infinite values, or fewer than two users.
    """
    _options(level, draws, None, 0.05)
    values, clusters = checked("a", values, clusters)
    (values,), clusters = defined([values], clusters)
    source = parts([values], clusters)
    drawn = bootstrap(source, draws, np.random.default_rng(seed))
    low, high = _interval(source, drawn, level)
    return Estimate(source.mean, low, high, level)


def contrast(
    a: Array,
    b: Array,
    clusters: Clusters,
    *,
    margin: float | None = None,
    seed_variance: float | None = None,
    seed_degrees: int = 2,
    level: float = 0.95,
    size: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> Contrast:
    """Compares two methods on the same cases, over seeds and users at once, as said above.

    Args:
        a: Metric of the first method by run and case, `(S_a, N)`; NaN where it is not defined. A
            case with NaN in any run of either method is left out.
        b: Metric of the second method on the same cases, `(S_b, N)`.
        clusters: User of each case, `(N,)`, whole numbers.
        margin: Difference up to which the methods count as equivalent, in the metric's unit.
        seed_variance: Variance of a run's mean, pooled over other methods: stands in for a method
            with one run (`pooled_seed_variance`).
        seed_degrees: Its degrees of freedom (`pooled_seed_degrees`); 2 are one method's 3 runs.
        level: Coverage of the interval, 0 to 1.
        size: Error rate of the test that `smallest` speaks of. Of a family of m contrasts it is
            alpha / m: what passes that is rejected by Holm's procedure whatever the others do.
        draws: Draws of the users.
        seed: Of the draws.

    Raises:
        DataError: Shapes that do not fit, infinite values, fewer than two users, or an option out
            of its range.
    """
    _options(level, draws, margin, size)
    if seed_variance is not None and not (seed_variance >= 0 and seed_degrees >= 1):
        raise DataError(
            f"seed_variance={seed_variance} with seed_degrees={seed_degrees}: give a variance of "
            "at least 0 and at least one degree of freedom."
        )
    a, b = checked("a", a, clusters)[0], checked("b", b, clusters)[0]
    (a, b), clusters = defined([a, b], np.asarray(clusters))
    known = None if seed_variance is None else (seed_variance, seed_degrees)
    source = parts([a, b], clusters, known)
    resampling, flipping = np.random.default_rng(seed).spawn(2)
    drawn = bootstrap(source, draws, resampling)
    low, high = _interval(source, drawn, level)
    statistic = studentised(np.array(source.mean), np.array(source.variance)).item()
    return Contrast(
        difference=source.mean,
        low=low,
        high=high,
        level=level,
        p=beyond(flips(source, draws, flipping), statistic),
        effect=_effect(source),
        smallest=_smallest(drawn, size),
        equivalent=None if margin is None else _equivalent(source, drawn, margin),
        seeds=(a.shape[0], b.shape[0]),
        cases=a.shape[1],
        clusters=source.sizes.size,
        about="models" if known is None and 1 in (a.shape[0], b.shape[0]) else "methods",
    )


def pooled_seed_variance(methods: Sequence[Array]) -> float | None:
    """Variance of a run's mean, pooled over the methods with two or more runs.

    Args:
        methods: Metric by run and case, `(S, N)` each; a case with NaN in any run of its method
            is left out.

    Returns:
        sum((S - 1) var) / sum(S - 1), in the metric's unit squared; None if no method has two.

    Raises:
        DataError: An array that is not `(S, N)`, or without a case.
    """
    degrees = pooled_seed_degrees(methods)
    squares = 0.0
    for values in methods:
        kept = values[:, ~np.isnan(values).any(axis=0)]
        if not kept.size:
            raise DataError("a method has no case with a value in every run.")
        squares += float(kept.mean(axis=1).var()) * len(values)
    return squares / degrees if degrees else None


def pooled_seed_degrees(methods: Sequence[Array]) -> int:
    """Degrees of freedom of `pooled_seed_variance`: runs less one, summed over the methods.

    Raises:
        DataError: An array that is not `(S, N)`.
    """
    for values in methods:
        if values.ndim != 2 or not values.shape[0]:
            raise DataError(
                f"values have shape {values.shape}; give one row a run and one column a case."
            )
    return sum(values.shape[0] - 1 for values in methods)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p values of a family of tests (Holm 1979, "A simple sequentially rejective...").

    Those at most alpha are rejected with a chance of at most alpha that any is wrong, whatever
    their dependence.

    Args:
        ps: p of each test of the family.

    Returns:
        Adjusted p in the same order.

    Raises:
        DataError: A p that is not between 0 and 1.
    """
    raw = np.asarray(ps, dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise DataError(f"p values {list(ps)}: each must lie between 0 and 1.")
    order = np.argsort(raw, kind="stable")
    steps = np.minimum(raw[order] * np.arange(raw.size, 0, -1), 1.0)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.maximum.accumulate(steps)
    return [float(p) for p in adjusted]


def _options(level: float, draws: int, margin: float | None, size: float) -> None:
    """Refuses options out of their range."""
    if not 0 < level < 1:
        raise DataError(f"level={level}: the coverage must lie between 0 and 1, such as 0.95.")
    if draws < 100:
        raise DataError(f"draws={draws}: quantiles need at least 100 draws; 2000 are usual.")
    if not 0 < size < 1:
        raise DataError(f"size={size}: the error rate must lie between 0 and 1, such as 0.05.")
    if margin is not None and not margin > 0:
        raise DataError(f"margin={margin}: the margin of equivalence must be greater than 0.")


def _interval(source: Parts, drawn: Draws, level: float) -> tuple[float, float]:
    """Quantiles of the drawn statistic in units of the observed standard error."""
    tail = (1 - level) / 2
    low, high = np.quantile(drawn.statistics, [tail, 1 - tail])
    error = np.sqrt(source.variance)
    return float(source.mean + low * error), float(source.mean + high * error)


def _smallest(drawn: Draws, size: float) -> float:
    """True difference at which the share `POWER` of all repetitions passes the test at `size`.

    A repetition with error e and standard error s is significant from a difference of q s - e on,
    q being the critical value: the quantile of this over repetitions is the answer. It is Bloom's
    (1995) minimum detectable effect (t quantiles of size and power, times the standard error),
    with the bootstrap's draws as repetitions in the place of Student's law.
    """
    critical = np.quantile(np.abs(drawn.statistics), 1 - size)
    return float(np.quantile(critical * np.sqrt(drawn.variances) - drawn.errors, POWER))


def _equivalent(source: Parts, drawn: Draws, margin: float) -> float:
    """Larger p of the tests that the difference is not above -margin, not below margin.

    The reference is that of the interval: p is under alpha where the interval of level
    1 - 2 alpha lies within the margin.
    """
    shifted = source.mean + drawn.statistics * np.sqrt(source.variance)
    return max(share(shifted <= -margin), share(shifted >= margin))


def _effect(source: Parts) -> float:
    """Mean of the users' differences over their standard deviation."""
    users = source.totals / source.sizes
    mean, deviation = users.mean(), users.std(ddof=1)
    if deviation <= 1e-12 * np.abs(users).max():
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return float(mean / deviation)
