"""Where a mean's uncertainty comes from: its runs, its users, and what is left of the two.

A value of method m, run s and user i is taken as

    mu_m + alpha_ms + beta_i + gamma_mi + epsilon_msi

with users crossed with runs and runs nested in methods. In a difference of two methods beta_i
cancels, and its variance is, for C users of equal size and S runs a method,

    sum over methods of var(alpha_m) / S + var(gamma_a - gamma_b) / C
    + sum over methods of var(epsilon_m) / (S C).

The spread over users of a difference that is averaged over runs holds the last two terms, the
spread over runs the first and the last; so the last one is estimated apart and taken off once,
as in two-way clustered standard errors (Cameron, Gelbach and Miller 2011, "Robust inference with
multiway clustering", eq. 2.13). Leaving it in, as a plain bootstrap of both margins does (Owen
2007, "The pigeonhole bootstrap", section 4), makes hit rates look up to twice as uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError

Array = NDArray[np.float64]
Clusters = NDArray[np.int64]

ROUNDING = 1e-12  # relative; sums of the same numbers in another order differ by less


@dataclass(frozen=True)
class SeedVariance:
    """What is known of one method's spread over runs; variances are of the method's mean.

    Attributes:
        spread: Variance of the mean as the run means show it, var(run means) / S.
        residual: The part of it that users x runs explain; the users' spread holds it already.
        degrees: Degrees of freedom of `spread`.
    """

    spread: float
    residual: float
    degrees: float

    @property
    def variance(self) -> float:
        """Variance of the mean through the runs alone."""
        return max(self.spread - self.residual, 0.0)


@dataclass(frozen=True)
class VarianceComponents:
    """A mean, or a difference of two means, with the sources of its variance.

    Attributes:
        mean: Over runs and cases.
        totals: Sums over a user's cases of the values averaged over runs, `(C,)`.
        sizes: Cases of a user, `(C,)`.
        seeds: One entry a source of what is known of the spread over runs.
    """

    mean: float
    totals: Array
    sizes: Array
    seeds: tuple[SeedVariance, ...]

    @property
    def centred(self) -> Array:
        """A user's share in the linearised error of the ratio mean, `(C,)`; sums to zero."""
        return self.totals - self.mean * self.sizes

    @property
    def users(self) -> float:
        """Variance of the mean through the users, runs as they are."""
        count = self.sizes.size
        seen = count / (count - 1) * np.square(self.centred).sum() / self.sizes.sum() ** 2
        return max(float(seen), self.residual)

    @property
    def residual(self) -> float:
        """The part of `users` that is known to come from users x runs, its lower bound."""
        return sum(part.residual for part in self.seeds)

    @property
    def runs(self) -> float:
        """Variance of the mean through the runs alone, over all methods."""
        return sum(part.variance for part in self.seeds)

    @property
    def variance(self) -> float:
        """Variance of the mean through users and runs."""
        return self.users + self.runs


def check_values(name: str, values: Array, clusters: Clusters) -> tuple[Array, Clusters]:
    """The same arrays as `(S, N)` float64 and `(N,)` integers.

    Raises:
        DataError: Another shape, an infinite value, clusters that are no integers.
    """
    values, clusters = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if values.ndim != 2 or not values.shape[0]:
        raise DataError(
            f"{name}: values have shape {values.shape}; give one row a run and one column a case."
        )
    if clusters.shape != values.shape[1:] or not np.issubdtype(clusters.dtype, np.integer):
        raise DataError(
            f"{name}: clusters are {clusters.dtype} of shape {clusters.shape}; give one whole "
            f"number (the user) for each of the {values.shape[1]} cases."
        )
    if np.isinf(values).any():
        raise DataError(f"{name}: a value is infinite; give NaN for a case without a value.")
    return values, clusters.astype(np.int64)


def select_defined(methods: Sequence[Array], clusters: Clusters) -> tuple[list[Array], Clusters]:
    """The cases with a value in every run of every method.

    Raises:
        DataError: They have fewer than two users.
    """
    keep = ~np.any([np.isnan(values).any(axis=0) for values in methods], axis=0)
    kept = clusters[keep]
    if np.unique(kept).size < 2:
        raise DataError(
            f"{int(keep.sum())} of {keep.size} cases have a value in every run, and they belong to "
            "fewer than two users; an interval needs at least two."
        )
    return [values[:, keep] for values in methods], kept


def compute_components(
    methods: Sequence[Array], clusters: Clusters, known: tuple[float, int] | None = None
) -> VarianceComponents:
    """Sources of variance of one method's mean, or of the first's less the second's.

    Args:
        methods: One or two arrays `(S, N)` without NaN.
        clusters: User of each case, `(N,)`.
        known: Variance of a run's mean and its degrees of freedom, for a method with one run.
    """
    code = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(code).astype(np.float64)
    rows: list[Array] = [
        np.array([np.bincount(code, run, sizes.size) for run in values], dtype=np.float64)
        for values in methods
    ]
    seeds = [_compute_seed_variance(totals, sizes) for totals in rows if totals.shape[0] > 1]
    single = sum(totals.shape[0] == 1 for totals in rows)
    if known is not None and single:  # one figure, whose error both methods share
        seeds.append(SeedVariance(single * known[0], 0.0, known[1]))
    means = [totals.mean(axis=0) for totals in rows]
    totals = means[0] - means[1] if len(means) == 2 else means[0]
    scale = max(float(np.abs(mean).max()) for mean in means)
    totals = np.where(np.abs(totals) <= ROUNDING * scale, 0.0, totals)
    return VarianceComponents(
        mean=float(totals.sum() / sizes.sum()),
        totals=totals,
        sizes=sizes,
        seeds=tuple(seeds),
    )


def _compute_seed_variance(totals: Array, sizes: Array) -> SeedVariance:
    """A method's spread over runs from its users' totals, `(S, C)` with S of at least two."""
    runs, users = totals.shape
    means = totals.sum(axis=1) / sizes.sum()
    error = totals - means[:, None] * sizes
    error -= error.mean(axis=0)
    cell = float(np.square(error).sum()) / ((runs - 1) * (users - 1))
    residual = cell * users / (runs * sizes.sum() ** 2)
    return SeedVariance(float(means.var(ddof=1)) / runs, residual, runs - 1)
