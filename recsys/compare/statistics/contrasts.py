"""Whether a difference between two methods is more than the luck of seeds and of users.

A claim about *methods* has to hold for other seeds and for other users, so intervals and tests
take both as random; users are the clusters of cases (a user's impressions are no independent
evidence). `statparts` says where the variance comes from, `statdraws` how the reference
distributions are drawn, `statpower` what can be shown; `benchmarks/quality/simulation.py`
measures coverage, size and power.

*Statistic.* Difference / standard error, the variance being that over users plus, for each
method, that over its runs less what users x runs explain (counted in both; see `statparts`).
The mean is over cases, so its error is linearised: a user's share is the sum of his
differences less the mean times his cases.

*Test.* The signs of the users' differences are flipped at random, as the null hypothesis allows,
with the runs drawn anew beside them. Without spread over runs it is the plain randomisation
test; with it, what the few runs leave open of their own spread is in the draws.

*Interval.* Of a difference: the true differences that the test does not reject, so that it
leaves out 0 exactly where the test (of this contrast alone) rejects; the two one-sided tests of
equivalence are read from the same draws. Of one method's mean, which has no sign to flip: users
are drawn with replacement and runs anew, and the drawn errors are studentised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.compare.statistics import power
from recsys.compare.statistics.resampling import ReferenceDistribution, bootstrap_errors, flip_signs
from recsys.compare.statistics.variance import (
    Array,
    Clusters,
    VarianceComponents,
    check_values,
    compute_components,
    select_defined,
)
from recsys.errors import DataError

ENDS = 1e-4
"""Of an interval's ends: this part of the standard error is not told apart."""
FARTHEST = 1e6
"""Standard errors from which on nothing will be rejected any more."""


@dataclass(frozen=True)
class MeanEstimate:
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
        low: Lower end of the interval: of the true differences that the test does not reject.
        high: Upper end of the interval.
        level: Coverage of the interval, 0 to 1.
        p: Two-sided p of the studentised sign-flip test; at most 1 - level exactly where the
            interval leaves out 0.
        effect: Mean over users of a user's difference (averaged over cases and seeds), divided by
            its standard deviation over users (Cohen's d_z); infinite where all differ alike.
        smallest: The true difference that these seeds and users find in about 80 % of all
            repetitions or more with a two-sided test of the size asked for, in the metric's unit
            (`statpower`); None without a size.
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
    smallest: float | None
    equivalent: float | None
    seeds: tuple[int, int]
    cases: int
    clusters: int
    about: Literal["methods", "models"]


def estimate_mean(
    values: Array, clusters: Clusters, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> MeanEstimate:
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
    _check_options(level, draws, None, None, None, 0)
    values, clusters = check_values("a", values, clusters)
    (values,), clusters = select_defined([values], clusters)
    source = compute_components([values], clusters)
    drawn = bootstrap_errors(source, draws, np.random.default_rng(seed))
    tail = (1 - level) / 2
    low, high = source.mean + np.quantile(drawn, [tail, 1 - tail]) * np.sqrt(source.variance)
    return MeanEstimate(source.mean, float(low), float(high), level)


def compute_contrast(
    a: Array,
    b: Array,
    clusters: Clusters,
    *,
    margin: float | None = None,
    seed_variance: float | None = None,
    seed_degrees: int = 2,
    level: float = 0.95,
    size: float | None = 0.05,
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
            with one run (`pool_seed_variance`).
        seed_degrees: Its degrees of freedom (`pool_seed_degrees`); 2 are one method's 3 runs.
        level: Coverage of the interval, 0 to 1.
        size: Error rate of the test that `smallest` speaks of. Of a family of m contrasts it is
            alpha / m: what passes that is rejected by Holm's procedure whatever the others do.
            None where nobody asks for `smallest`, which costs as much as all the rest.
        draws: Draws of the users.
        seed: Of the draws.

    Raises:
        DataError: Shapes do not fit, values are infinite, users fewer than two, options odd.
    """
    _check_options(level, draws, margin, size, seed_variance, seed_degrees)
    a, b = check_values("a", a, clusters)[0], check_values("b", b, clusters)[0]
    (a, b), clusters = select_defined([a, b], np.asarray(clusters))
    known = None if seed_variance is None else (seed_variance, seed_degrees)
    source = compute_components([a, b], clusters, known)
    flipping, repeating = np.random.default_rng(seed).spawn(2)
    reference = flip_signs(source, draws, flipping)
    low, high = compute_interval(reference, 1 - level)
    smallest = None
    if size is not None:
        extra = power.compute_variance_growth([a, b], clusters, source)
        smallest = power.compute_detectable_difference(source, size, extra, repeating)
    return Contrast(
        source.mean,
        low,
        high,
        level,
        p=reference.compute_p(),
        effect=_compute_effect(source),
        smallest=smallest,
        equivalent=None if margin is None else compute_equivalence_p(reference, margin),
        seeds=(a.shape[0], b.shape[0]),
        cases=a.shape[1],
        clusters=source.sizes.size,
        about="models" if known is None and 1 in (a.shape[0], b.shape[0]) else "methods",
    )


def pool_seed_variance(methods: Sequence[Array]) -> float | None:
    """Variance of a run's mean, pooled over the methods with two or more runs.

    Args:
        methods: Metric by run and case, `(S, N)` each; a case with NaN in any run of its method
            is left out.

    Returns:
        sum((S - 1) var) / sum(S - 1), in the metric's unit squared; None if no method has two.

    Raises:
        DataError: An array that is not `(S, N)`, or without a case.
    """
    degrees = pool_seed_degrees(methods)
    squares = 0.0
    for values in methods:
        kept = values[:, ~np.isnan(values).any(axis=0)]
        if not kept.size:
            raise DataError("a method has no case with a value in every run.")
        squares += float(kept.mean(axis=1).var()) * len(values)
    return squares / degrees if degrees else None


def pool_seed_degrees(methods: Sequence[Array]) -> int:
    """Degrees of freedom of `pool_seed_variance`: runs less one, summed over the methods.

    Raises:
        DataError: An array that is not `(S, N)`.
    """
    for values in methods:
        if values.ndim != 2 or not values.shape[0]:
            raise DataError(
                f"values have shape {values.shape}; give one row a run and one column a case."
            )
    return sum(values.shape[0] - 1 for values in methods)


def adjust_holm(ps: Sequence[float]) -> list[float]:
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


def _check_options(
    level: float,
    draws: int,
    margin: float | None,
    size: float | None,
    variance: float | None,
    degrees: int,
) -> None:
    """Raises a clear error where an option is out of its range."""
    if not 0 < level < 1:
        raise DataError(f"level={level}: the coverage must lie between 0 and 1, such as 0.95.")
    if draws < 100:
        raise DataError(f"draws={draws}: quantiles need at least 100 draws; 2000 are usual.")
    if size is not None and not 0 < size < 1:
        raise DataError(f"size={size}: the error rate must lie between 0 and 1, such as 0.05.")
    if margin is not None and not margin > 0:
        raise DataError(f"margin={margin}: the margin of equivalence must be greater than 0.")
    if variance is not None and not (variance >= 0 and degrees >= 1):
        raise DataError(
            f"seed_variance={variance} with seed_degrees={degrees}: give a variance of at least 0 "
            "and at least one degree of freedom."
        )


def compute_interval(reference: ReferenceDistribution, size: float) -> tuple[float, float]:
    """Lowest and highest true difference that the test does not reject.

    Of so few users that no signs of theirs can be rejected, nothing can be left out: then the
    ends lie four standard errors beyond the difference and beyond 0.

    Args:
        reference: Of the test.
        size: Its error rate, two-sided.
    """
    source = reference.parts
    error = float(np.sqrt(source.variance))
    reach = 4 * error + abs(source.mean)
    return (
        source.mean - _search_end(reference, -1, size, reach, error),
        source.mean + _search_end(reference, 1, size, reach, error),
    )


def _search_end(
    reference: ReferenceDistribution, side: int, size: float, most: float, error: float
) -> float:
    """How far the difference may lie on one side of the observed one without being rejected."""
    from scipy.optimize import brentq

    near, far = 0.0, 2 * error
    if not error:
        return 0.0

    def compute_log_ratio(distance: float) -> float:
        p = reference.compute_p(reference.parts.mean + side * distance)
        return float(np.log(p / size))  # nearly a parabola, where p itself is a bell

    while compute_log_ratio(far) > 0:
        if far > FARTHEST * error:
            return most
        near, far = far, 2 * far
    # Zero is the difference that everybody looks at: the interval and the test agree on it.
    zero = -side * reference.parts.mean
    if near < zero < far:
        near, far = (zero, far) if compute_log_ratio(zero) > 0 else (near, zero)
    return float(brentq(compute_log_ratio, near, far, xtol=ENDS * error, rtol=ENDS))


def compute_equivalence_p(reference: ReferenceDistribution, margin: float) -> float:
    """Larger p of the tests that the difference is not above -margin, not below margin.

    The reference is that of the interval: p is under alpha where the interval of level
    1 - 2 alpha lies within the margin.

    Args:
        reference: Of the test.
        margin: Difference that does not matter, in the metric's unit.
    """
    mean = reference.parts.mean
    sides = [(reference.compute_p(side * margin) / 2, mean * side < margin) for side in (-1, 1)]
    return max(p if within else 1 - p for p, within in sides)


def _compute_effect(source: VarianceComponents) -> float:
    """Mean of the users' differences over their standard deviation."""
    users = source.totals / source.sizes
    mean, deviation = users.mean(), users.std(ddof=1)
    if deviation <= 1e-12 * np.abs(users).max():
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return float(mean / deviation)
