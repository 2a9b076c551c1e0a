"""Reference distributions of a studentised mean: users resampled or flipped, runs drawn anew.

Two or three runs cannot be resampled: their bootstrap variance is too small by (S - 1) / S, and
two runs have four resamples. All 20 ways of dealing 3 + 3 runs out to two methods give no p under
0.1. So users, of whom there are many, are treated without a model, and the few runs by a normal
one: each draw adds run effects to the users' part.

Two or three runs also leave a doubt that no estimate of their spread takes away, because it may
by chance be far too small. Degrees of freedom that are computed from the same estimates
(Satterthwaite 1946, as in Welch's test) go wrong exactly there: where one method's runs spread
much and the other's little, the usual case of a stable baseline and an unstable rival, such a
test rejected in 7 to 12 % at 5 % with two or three runs, and in ten times its level at 0.1 %. So
the variance of the runs is drawn, not taken: observed spread x degrees / chi-squared, less what
users x runs explain, for each method apart (the Behrens-Fisher law: Fisher 1935, "The fiducial
argument in statistical inference"; Robinson 1976, "Properties of the Behrens-Fisher solution").
Where one source dominates, its tails are those of Student's t with that method's runs less one;
where users do, they are normal; and where two runs happen to agree they stay wide.

With as many runs on both sides the two spreads are drawn as one sum. Its degrees lie between
those of one side, which are enough whatever the spreads are (Hajek 1962, "Inequalities for the
generalized Student's distribution"), and the Satterthwaite figure: with the share f of a side in
the sum they are the degrees of one side / sum of f ** 1.25. The exponent is the largest of 1,
1.25, 1.5 and 2 that left the error rate of no constellation above the level, by simulation; it
gives back a part of the power that the plain law costs where spreads are alike. What both
cost is in `benchmarks/quality/statistics.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.compare.statistics.variance import Array, SeedVariance, VarianceComponents

BLOCK = 200_000  # weights held at a time: 1.6 MB in float64, which stays in the cache
COPIED = 4_000  # draws of the runs: several beside each draw of the users, if these are fewer
TIE = 1e-9  # relative: two statistics closer than this are the same one, rounded
SHARING = 1.25  # exponent of the shares in `pool_degrees`


def pool_degrees(seeds: Sequence[SeedVariance]) -> float | None:
    """Degrees of freedom of the sum of the spreads of sources that have as many runs each.

    Args:
        seeds: Sources with a spread above zero.

    Returns:
        From those of one source, where it has all of the spread, to 1.19 times them for two that
        spread alike; None where there is no source, or where their numbers of runs differ.
    """
    if len({source.degrees for source in seeds}) != 1:
        return None
    total = sum(source.spread for source in seeds)
    return float(seeds[0].degrees / sum((s.spread / total) ** SHARING for s in seeds))


def sample_run_variances(
    parts: VarianceComponents, shape: tuple[int, ...], rng: np.random.Generator
) -> Array | None:
    """Variances of the mean through the runs alone, drawn from what the runs tell of them.

    Args:
        parts: What was observed.
        shape: Of the draws.
        rng: Of the draws.

    Returns:
        An array of this shape; None where no source has any spread over runs.
    """
    seeds = [source for source in parts.seeds if source.spread > 0]
    if not seeds:
        return None
    degrees = pool_degrees(seeds)
    if degrees is not None:
        total = sum(source.spread for source in seeds)
        seeds = [SeedVariance(total, sum(source.residual for source in seeds), degrees)]
    out = np.zeros(shape)
    for source in seeds:
        doubt = rng.chisquare(source.degrees, size=shape) / source.degrees
        out += np.maximum(source.spread / doubt - source.residual, 0.0)
    return out


@dataclass(frozen=True)
class ReferenceDistribution:
    """What the studentised difference may be where the true one is known, by random signs.

    Attributes:
        parts: What was observed.
        sums: Of the users' totals, sizes, totals x sizes and squared sizes with the signs of a
            draw, `(draws, 4)`.
        runs: Variances through the runs, `(copies, draws)`; None where runs have no spread.
    """

    parts: VarianceComponents
    sums: Array
    runs: Array | None

    def compute_p(self, true: float = 0.0) -> float:
        """Two-sided p of the observed difference if the true one is `true`.

        Without a further difference a user's one is as likely as its negative (Fisher 1935, "The
        design of experiments", section 21). The variance over users is computed again with the
        signs, which makes the test robust to users of unequal size and spread (Janssen 1997,
        "Studentized permutation tests for non-i.i.d. hypotheses"). The run effects are not drawn:
        given their variance, the chance that they carry a draw beyond the observed statistic is
        the normal one. The observed difference counts as one of the draws.

        Args:
            true: The difference under the hypothesis, in the metric's unit.
        """
        parts = self.parts
        far = abs(parts.mean - true) * (1 - TIE)
        if self.runs is None:
            errors, deviations = self._compute_user_errors(true)
            if parts.variance == 0:  # then only a draw without variance can be as far
                return _compute_share((deviations == 0) & (errors != 0)) if far else 1.0
            return _compute_share(np.abs(errors) >= far / np.sqrt(parts.variance) * deviations)
        from scipy.special import erfc

        errors, deviations, scale = self._with_runs
        bounds = far / np.sqrt(parts.variance) * deviations
        both = erfc((bounds - errors) / scale) + erfc((bounds + errors) / scale)
        return _compute_share(both / 2)

    @cached_property
    def _with_runs(self) -> tuple[Array, Array, Array]:
        """Errors and deviations of the users, and the scale of the runs' errors.

        The users' differences are taken from the observed mean, whatever the hypothesis: a
        difference that runs have made is no spread of the users.
        """
        if self.runs is None:
            raise ValueError("without runs the users' signs are flipped around the hypothesis")
        errors, deviations = self._compute_user_errors(self.parts.mean)
        scale = np.sqrt(2 * np.maximum(self.runs, 1e-30 * self.parts.variance))
        return errors, deviations, scale

    def _compute_user_errors(self, around: float) -> tuple[Array, Array]:
        """Errors through the users' signs and their deviations with the runs', `(draws,)` each.

        Args:
            around: Where a user's difference is as likely as its negative.
        """
        parts, sizes = self.parts, self.parts.sizes
        cases, users, squared = sizes.sum(), sizes.size, float(np.square(sizes).sum())
        errors = (self.sums[:, 0] - around * self.sums[:, 1]) / cases
        left = np.square(parts.totals - around * sizes).sum() + np.square(errors) * squared
        left -= 2 * errors * (self.sums[:, 2] - around * self.sums[:, 3])
        spread = users / (users - 1) * np.maximum(left, 0.0) / cases**2
        return errors, np.sqrt(np.maximum(spread, parts.residual) + parts.runs)


def flip_signs(
    parts: VarianceComponents, draws: int, rng: np.random.Generator
) -> ReferenceDistribution:
    """Signs of the users' differences flipped at random and variances of the runs, drawn."""
    users, totals, sizes = parts.sizes.size, parts.totals, parts.sizes
    columns = np.stack([totals, sizes, totals * sizes, np.square(sizes)], axis=1)

    def sample_signs(rows: int) -> Array:
        return 2 * rng.integers(0, 2, size=(rows, users), dtype=np.int8).astype(np.float64) - 1

    sums = np.concatenate(
        [drawn @ columns for drawn in _iterate_blocks(sample_signs, draws, users)]
    )
    return ReferenceDistribution(
        parts, sums, sample_run_variances(parts, (_count_copies(draws), draws), rng)
    )


def bootstrap_errors(parts: VarianceComponents, draws: int, rng: np.random.Generator) -> Array:
    """Studentised errors of a mean, users drawn with replacement and runs drawn anew, at once.

    The variance over users is not computed again from the resample: with rare hits it may have
    none, and a standard error of zero. That it is uncertain is drawn as its chi-squared law.
    """
    users = parts.sizes.size
    columns = np.stack([parts.centred, parts.sizes], axis=1)

    def sample_weights(rows: int) -> Array:
        chosen = rng.integers(0, users, size=(rows, users)) + np.arange(rows)[:, None] * users
        return (
            np.bincount(chosen.ravel(), minlength=rows * users).reshape(rows, users).astype(float)
        )

    sums = np.concatenate(
        [drawn @ columns for drawn in _iterate_blocks(sample_weights, draws, users)]
    )
    shape = (_count_copies(draws), draws)
    errors = np.broadcast_to(np.sqrt(users / (users - 1)) * sums[:, 0] / sums[:, 1], shape)
    runs = sample_run_variances(parts, shape, rng)
    if runs is not None:
        errors = errors + np.sqrt(runs) * rng.standard_normal(shape)
    doubt = rng.chisquare(users - 1, size=shape) / (users - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = errors / np.sqrt(parts.users * doubt + parts.runs)
    return np.where(errors == 0, 0.0, out).ravel()


def _count_copies(draws: int) -> int:
    """Draws of the runs beside each draw of the users."""
    return max(1, COPIED // draws)


def _compute_share(hits: np.ndarray) -> float:
    """Share of the draws, the observed case being one of them."""
    draws = hits.shape[-1]
    return float((hits.mean() * draws + 1) / (draws + 1))


def _iterate_blocks(make: Callable[[int], Array], draws: int, users: int) -> Iterator[Array]:
    """Matrices `(rows, users)` of `draws` rows together, of bounded memory each."""
    step = max(1, BLOCK // users)
    for start in range(0, draws, step):
        yield make(min(step, draws - start))
