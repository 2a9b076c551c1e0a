"""Seeds that spread unequally, by simulation: how often the test claims what is not so.

The worlds of `simulation.py` in which method a's runs spread more than method b's. Beside the test
as it is stands the one before it, with Satterthwaite's degrees of freedom from the same few runs
wherever both methods spread, so that what validity costs can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.compare.statistics import power
from recsys.compare.statistics.contrasts import adjust_holm
from recsys.compare.statistics.resampling import flip_signs
from recsys.compare.statistics.variance import VarianceComponents, compute_components

Array = NDArray[np.float64]
USERS = 60
DRAWS = 2000
OWN = 150
"""Repetitions in which the smallest difference of the report is planted; it takes the longest."""
FAR = 4.0
"""True difference of the power columns, in standard errors as they truly are."""
RIVALS = 5
NOISE = {"small": 1 / 25, "alike": 1.0, "large": 25.0}
"""Variance of a difference through the users, as a multiple of that through the runs."""


@dataclass(frozen=True)
class Spread:
    """Two methods whose runs spread unequally.

    Attributes:
        runs: Seeds of a and of b.
        ratio: Spread of b's runs over that of a's; None where b is one deterministic run.
        noise: Variance through the users over that through the runs.
    """

    runs: tuple[int, int]
    ratio: float | None
    noise: float

    @property
    def through_runs(self) -> float:
        """Variance of the difference through the runs, a's spread being 1."""
        return 1 / self.runs[0] + (self.ratio or 0.0) ** 2 / self.runs[1]

    @property
    def error(self) -> float:
        """True standard error of the difference."""
        return math.sqrt(self.through_runs * (1 + self.noise))

    @property
    def user(self) -> float:
        """Variance of a user's value, of which a sixth is his liking and a third the run's."""
        rows = [self.runs[0], self.runs[1] if self.ratio is not None else 1]
        share = sum(1 / 6 + 1 / 3 / count for count in rows) / USERS
        return self.noise * self.through_runs / share

    def draw(self, count: int, spread: float | None, rng: np.random.Generator) -> Array:
        """A method's values, `(S, C)`; one row twice where it has no chance of its own."""
        rows = 1 if spread is None else count
        liking = math.sqrt(1 / 6) * rng.standard_normal(USERS)
        left = math.sqrt(1 / 3) * rng.standard_normal((rows, USERS))
        values = math.sqrt(self.user) * (liking + left)
        if spread is None:
            return np.repeat(values, 2, axis=0)
        return values + spread * rng.standard_normal((rows, 1))

    def pair(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Values of both methods, without a difference."""
        return self.draw(self.runs[0], 1.0, rng), self.draw(self.runs[1], self.ratio, rng)


def before(found: Sequence[tuple[VarianceComponents, float]], current: Sequence[float]) -> Array:
    """The p of the test as it was, for differences and the true one of each.

    Where one source had all of the spread it was the law of today, `current`.
    """
    from scipy.stats import t

    statistic, degrees, kept = [], [], []
    for source, true in found:
        statistic.append(abs(source.mean - true) / math.sqrt(source.variance))
        doubt = sum(s.spread**2 / s.degrees for s in source.seeds if s.variance > 0)
        degrees.append(source.variance**2 / doubt if doubt else np.inf)
        kept.append(sum(s.spread > 0 for s in source.seeds) == 1)
    p = 2 * t.sf(statistic, degrees)
    return np.where(kept, current, p).astype(np.float64)


def interval(share: float, count: int) -> str:
    """A share in percent with the Monte Carlo interval of 95 % (Wilson 1927)."""
    z2 = 1.96**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return f"{100 * share:.1f} ({100 * max(middle - half, 0):.1f} to {100 * (middle + half):.1f})"


def contrasts(count: int) -> list[str]:
    """The table of single contrasts."""
    lines = [
        "| users' noise | spread of b / a | seeds | rejected at 5 %, before | now "
        "| at 0.5 %, before | now | 4 errors found, before | now | own smallest found |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for noise, times in NOISE.items():
        for ratio in (1.0, 1 / 3, 0.1, None) if noise == "small" else (1.0, 0.1, None):
            equal = ((2, 2), (3, 3), (5, 5))
            for runs in equal if ratio is None else (*equal, (2, 5), (5, 2)):
                world = Spread(runs, ratio, times)
                lines.append(_contrast(world, noise, count))
                print(lines[-1], flush=True)
    return lines


def _contrast(world: Spread, noise: str, count: int) -> str:
    """A line: false claims and power of the two tests."""
    shift = FAR * world.error
    clusters = np.arange(USERS)
    sources, null, there, own = [], [], [], []
    for number in range(count):
        rng = np.random.default_rng([7, *world.runs, round(100 * (world.ratio or 0)), number])
        source = compute_components(world.pair(rng), clusters)
        reference = flip_signs(source, DRAWS, rng)
        sources.append(source)
        null.append(reference.compute_p())
        there.append(reference.compute_p(-shift))  # as if a were better by so much
        if number < OWN:
            smallest = power.compute_detectable_difference(source, 0.05, 0.0, rng)
            again = flip_signs(compute_components(world.pair(rng), clusters), DRAWS, rng)
            own.append(again.compute_p(-smallest) <= 0.05)
    old = before([(s, 0.0) for s in sources], null)
    old_there = before([(s, -shift) for s in sources], there)
    ratio = "no seeds" if world.ratio is None else f"{world.ratio:.2g}"
    runs = f"{world.runs[0]}" if world.ratio is None else f"{world.runs[0]}, {world.runs[1]}"
    cells = [noise, ratio, runs]
    for size in (0.05, 0.005):
        cells.append(f"{100 * np.mean(old <= size):.1f}")
        cells.append(interval(float(np.mean(np.array(null) <= size)), count))
    cells += [f"{100 * np.mean(np.array(ps) <= 0.05):.0f}" for ps in (old_there, there)]
    cells.append(f"{100 * np.mean(own):.0f}")
    return "| " + " | ".join(cells) + " |"


FAMILIES = {
    "stable baseline, rivals spread": (1.0, 0.1, "small"),
    "baseline spreads, rivals stable": (0.1, 1.0, "small"),
    "stable baseline, users' noise alike": (1.0, 0.1, "alike"),
}
"""Spread of the rivals, of the baseline, and the users' noise."""


def families(count: int) -> list[str]:
    """The table of families: any false claim among the contrasts to one baseline, after Holm."""
    lines = [
        f"| {RIVALS} contrasts | seeds of each | any claim after Holm at 5 %, before | now |",
        "|---|---:|---:|---:|",
    ]
    for name, (rivals, base, noise) in FAMILIES.items():
        for seeds in (2, 3, 5):
            world = Spread((seeds, seeds), min(rivals, base) / max(rivals, base), NOISE[noise])
            wrong = [_family(world, rivals, base, number) for number in range(count)]
            old, now = np.mean(wrong, axis=0)
            lines.append(
                f"| {name} | {seeds} | {interval(float(old), count)} "
                f"| {interval(float(now), count)} |"
            )
            print(lines[-1], flush=True)
    return lines


def _family(world: Spread, rivals: float, base: float, number: int) -> tuple[bool, bool]:
    """Whether any of the contrasts of one repetition is claimed, by the test before and now."""
    rng = np.random.default_rng([8, world.runs[0], round(10 * base), number])
    seeds, clusters = world.runs[0], np.arange(USERS)
    against = world.draw(seeds, base, rng)
    sources = [
        compute_components([world.draw(seeds, rivals, rng), against], clusters)
        for _ in range(RIVALS)
    ]
    now = [flip_signs(source, DRAWS, rng).compute_p() for source in sources]
    old = before([(source, 0.0) for source in sources], now)
    return min(adjust_holm([float(p) for p in old])) <= 0.05, min(adjust_holm(now)) <= 0.05
