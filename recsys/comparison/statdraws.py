"""Reference distributions of a studentised mean: users resampled or flipped, runs drawn anew.

Two or three runs cannot be resampled: their bootstrap variance is too small by (S - 1) / S, and
two runs have four resamples. All 20 ways of dealing 3 + 3 runs out to two methods give no p under
0.1. So users, of whom there are many, are treated without a model, and the few runs by a normal
one: each draw adds run effects of the estimated variance to the users' part, and is divided by a
standard error that is as uncertain as the observed one is, its square being chi-squared with
Satterthwaite's (1946, "An approximate distribution of estimates of variance components") degrees
of freedom. The tails then are those of Student's t where runs dominate (Welch's test of the run
means) and normal where users do; with users alone, nothing but resampling or flipping is left.

Two or three runs leave a doubt that no estimate of their spread takes away, because it may by
chance be far too small. Between two methods that both have it, the errors of the two estimates
balance: the test rejects under the null hypothesis in about 7 % (two runs a side) or 5.5 %
(three) instead of 5 % where runs make most of the variance. Where all of the spread over runs is
one estimate (against tfidf, which has none; of one method's mean; one pooled figure for single
runs) nothing balances it. There Satterthwaite's degrees of freedom go wrong where they matter:
they are computed from the estimate, and so are many when it is too small and infinite when it
is cut off at zero, and the test rejected in 10 to 13 % with two runs and 7 to 8 % with three. So
the runs' variance is then drawn from its posterior: observed spread x degrees / chi-squared,
less what users x runs explain. The tails are those of the Behrens-Fisher law (Fisher 1935, "The
fiducial argument in statistical inference"): Student's where runs dominate, and wider than normal
where two runs happen to agree. The test rejects in 0 to 5 %; what can be shown with two runs is
up to twice as large, with three up to a quarter larger. For two estimates the posterior would
reject in under 1 % where two runs a side differ little, so that they keep Satterthwaite's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from recsys.comparison.statparts import Array, Parts

BLOCK = 200_000  # weights held at a time: 1.6 MB in float64, which stays in the cache
COPIES = 8  # draws of the runs beside each draw of the users; they cost next to nothing
TIE = 1e-9  # relative: two statistics closer than this are the same one, rounded


@dataclass(frozen=True)
class Draws:
    """Errors of a mean and their squared standard errors, drawn; both `(draws * copies,)`."""

    errors: Array
    variances: Array

    @property
    def statistics(self) -> Array:
        """Error / standard error; 0 / 0 is 0."""
        return studentised(self.errors, self.variances)


def studentised(errors: Array, variances: Array) -> Array:
    """Errors / their standard errors, infinite where only the latter are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = errors / np.sqrt(variances)
    return np.where(errors == 0, 0.0, out).astype(np.float64)


def bootstrap(parts: Parts, draws: int, rng: np.random.Generator) -> Draws:
    """Users drawn with replacement and runs drawn anew, at once.

    The variance over users is not computed again from the resample: with rare hits it may have
    none, and a standard error of zero. That it is uncertain too is in the degrees of freedom.
    """
    users = parts.sizes.size
    columns = np.stack([parts.centred, parts.sizes], axis=1)

    def weights(rows: int) -> Array:
        chosen = rng.integers(0, users, size=(rows, users)) + np.arange(rows)[:, None] * users
        return (
            np.bincount(chosen.ravel(), minlength=rows * users).reshape(rows, users).astype(float)
        )

    sums = np.concatenate([drawn @ columns for drawn in _blocks(weights, draws, users)])
    errors = np.sqrt(users / (users - 1)) * sums[:, 0] / sums[:, 1]
    return _with_runs(errors, np.full(draws, parts.users), parts, parts.degrees(True), rng)


def flips(parts: Parts, draws: int, rng: np.random.Generator) -> Draws:
    """The sign of each user's difference flipped at random and runs drawn anew, at once.

    Without a difference between the methods a user's difference is as likely as its negative
    (Fisher 1935, "The design of experiments", section 21); its variance is computed again with
    the signs, which makes the test robust to users of unequal size and spread (Janssen 1997,
    "Studentized permutation tests for non-i.i.d. hypotheses").
    """
    users, cases = parts.sizes.size, parts.sizes.sum()
    columns = np.stack([parts.totals, parts.totals * parts.sizes], axis=1)

    def signs(rows: int) -> Array:
        return 2 * rng.integers(0, 2, size=(rows, users), dtype=np.int8).astype(np.float64) - 1

    sums = np.concatenate([drawn @ columns for drawn in _blocks(signs, draws, users)])
    errors = sums[:, 0] / cases
    squares = np.square(parts.totals).sum() - 2 * errors * sums[:, 1]
    squares += np.square(errors) * np.square(parts.sizes).sum()
    variances = users / (users - 1) * np.maximum(squares, 0.0) / cases**2
    variances = np.maximum(variances, parts.residual)
    return _with_runs(errors, variances, parts, parts.degrees(False), rng)


def beyond(draws: Draws, statistic: float) -> float:
    """Share of the draws that are at least as far from zero, the observed one counted in."""
    far = np.abs(draws.statistics) >= abs(statistic) * (1 - TIE)
    return share(far)


def share(hits: np.ndarray) -> float:
    """(hits + 1) / (draws + 1), for draws that were copied `COPIES` times."""
    count = hits.size / COPIES
    return float((hits.sum() / COPIES + 1) / (count + 1))


def _blocks(make: Callable[[int], Array], draws: int, users: int) -> Iterator[Array]:
    """Matrices `(rows, users)` of `draws` rows together, of bounded memory each."""
    step = max(1, BLOCK // users)
    for start in range(0, draws, step):
        yield make(min(step, draws - start))


def _with_runs(
    errors: Array, users: Array, parts: Parts, degrees: float, rng: np.random.Generator
) -> Draws:
    """Adds run effects to the draws of the users, and doubt to their variances `users`.

    Args:
        errors: Through the users, `(draws,)`.
        users: Variances of these, `(draws,)`.
        parts: What was observed.
        degrees: Of the variance through users and runs; not needed where one source has all of
            the spread over runs, whose variance then is drawn instead.
        rng: Of the draws.
    """
    errors, variances = np.tile(errors, COPIES), np.tile(users, COPIES) + parts.runs
    lone = parts.lone
    if lone is not None:
        doubt = rng.chisquare(lone.degrees, size=errors.size) / lone.degrees
        runs = np.maximum(lone.spread / doubt - lone.residual, 0.0)
        errors += np.sqrt(runs) * rng.standard_normal(errors.size)
        return Draws(errors, variances)
    errors += np.sqrt(parts.runs) * rng.standard_normal(errors.size)
    if np.isfinite(degrees):
        variances *= rng.chisquare(degrees, size=errors.size) / degrees
    return Draws(errors, variances)
