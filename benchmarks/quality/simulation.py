"""Coverage, size and power of the comparison's statistics, by simulation.

Usage: python benchmarks/quality/simulation.py [REPETITIONS]

Writes `statistics.md` beside this file. Every world has known truth: users, runs and what is left
are drawn anew in each repetition, so that a claim about methods can be right or wrong. 1,000
repetitions (the default) give a share near 5 % to within 1.4 points, 400 to within 2.2.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.comparison.statistics import (
    contrast,
    estimate,
    pooled_seed_degrees,
    pooled_seed_variance,
)

Array = NDArray[np.float64]
PAGE = Path(__file__).resolve().parent / "statistics.md"
DRAWS = 250
LARGE = 4000  # users from which on a world gets half of the repetitions


@dataclass(frozen=True)
class World:
    """A metric's behaviour over users and runs.

    Attributes:
        kind: "normal" (additive normal effects), "heavy" (users' effects with 3 degrees of
            freedom), "hit" (0 or 1, the share of ones being `rate`), "gain" (nDCG@10 of such hits).
        users: Users a repetition draws.
        spread: Standard deviation of a run's effect, in the metric's unit.
        rate: Share of hits.
        cases: Mean number of a user's cases.
        fixed: The second method is without chance: all its runs are the same.
    """

    kind: str
    users: int
    spread: float
    rate: float = 0.07
    cases: int = 1
    fixed: bool = False


def draw(
    world: World, runs: list[int], shift: float, rng: np.random.Generator
) -> tuple[list[Array], NDArray[np.int64]]:
    """Runs of methods that share the users; the first method is better by `shift`.

    Of a method's values, half of the variance that users make is common to all methods, a sixth is
    the user's liking of the method, and a third changes from run to run.
    """
    sizes = np.ones(world.users, dtype=np.int64)
    if world.cases > 1:
        sizes = rng.geometric(1 / world.cases, size=world.users)
    owner = np.repeat(np.arange(world.users), sizes)
    common = _effects(world, rng)[owner]
    methods = []
    for place, count in enumerate(runs):
        liking = _effects(world, rng)[owner]
        effect = world.spread * rng.standard_normal((count, 1)) + (shift if place == 0 else 0.0)
        left = rng.standard_normal((count, owner.size))
        latent = math.sqrt(1 / 2) * common + math.sqrt(1 / 6) * liking + math.sqrt(1 / 3) * left
        if world.fixed and place == 1:
            latent, effect = np.repeat(latent[:1], count, axis=0), np.zeros_like(effect)
        methods.append(_observed(world, latent, effect, rng))
    return methods, owner


def _effects(world: World, rng: np.random.Generator) -> Array:
    """Effects of the users with variance 1."""
    if world.kind == "heavy":
        return rng.standard_t(3, size=world.users) / math.sqrt(3)
    return rng.standard_normal(world.users)


def _observed(world: World, latent: Array, effect: Array, rng: np.random.Generator) -> Array:
    """The metric's values; a run's effect moves the share of hits by itself, in the mean.

    The threshold on the latent value is that of the share `rate` + effect, so that the mean over
    users is exactly `rate` + effect for normal latent values.
    """
    if world.kind in ("normal", "heavy"):
        return latent + effect
    from scipy.stats import norm

    hits = latent > norm.ppf(1 - np.clip(world.rate + effect, 1e-4, 1 - 1e-4))
    if world.kind == "hit":
        return hits.astype(np.float64)
    return hits / np.log2(1 + rng.integers(1, 11, size=hits.shape))


def truth(world: World, shift: float) -> float:
    """The true difference in the metric's unit."""
    if world.kind == "gain":
        return shift * float(np.mean(1 / np.log2(1 + np.arange(1, 11))))
    return shift


@dataclass
class Tally:
    """What many repetitions of one cell found."""

    covered: float
    rejected: float
    width: float
    smallest: float
    single: float


def repeat(world: World, runs: tuple[int, int], shift: float, count: int, seed: int) -> Tally:
    """Repetitions of one contrast."""
    true = truth(world, shift)
    level = truth(world, 0.0 if world.kind in ("normal", "heavy") else world.rate)
    rows = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (a, b), owner = draw(world, list(runs), shift, rng)
        found = contrast(a, b, owner, draws=DRAWS, seed=number)
        alone = estimate(b, owner, draws=DRAWS, seed=number)
        rows.append(
            (
                found.low <= true <= found.high,
                found.p <= 0.05,
                found.high - found.low,
                found.smallest,
                alone.low <= level <= alone.high,
            )
        )
    return Tally(*(float(x) for x in np.mean(np.array(rows, dtype=float), axis=0)))


def pairs(world: World, group: int, count: int, seed: int) -> float:
    """Share of the comparisons of disjoint groups of 20 runs of one method that is rejected."""
    rejected = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (values,), owner = draw(world, [20], 0.0, rng)
        groups = np.split(rng.permutation(20)[: 20 // group * group], 20 // group)
        rejected += [
            contrast(values[a], values[b], owner, draws=DRAWS, seed=number).p <= 0.05
            for a, b in combinations(groups, 2)
        ]
    return float(np.mean(rejected))


def single_pairs(world: World, others: int, count: int, seed: int) -> float:
    """Share of every sixth of the 190 pairs of single runs of one method that is rejected.

    The spread over seeds is pooled over `others` further methods of three runs each.
    """
    rejected = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (values, *rest), owner = draw(world, [20, *[3] * others], 0.0, rng)
        variance, degrees = pooled_seed_variance(rest), pooled_seed_degrees(rest)
        rejected += [
            contrast(
                values[[i]],
                values[[j]],
                owner,
                seed_variance=variance,
                seed_degrees=degrees,
                draws=DRAWS,
                seed=number,
            ).p
            <= 0.05
            for i, j in list(combinations(range(20), 2))[number % 6 :: 6]
        ]
    return float(np.mean(rejected))


WORLDS = {
    "normal, no spread over seeds": World("normal", 300, 0.0),
    "normal, seeds and users alike": World("normal", 300, 0.05),
    "normal, seeds dominate": World("normal", 300, 0.2),
    "normal, against a fixed method": World("normal", 300, 0.1, fixed=True),
    "heavy tails": World("heavy", 300, 0.05),
    "5 impressions a user": World("normal", 300, 0.05, cases=5),
    "hit rate 2 %": World("hit", 300, 0.005, rate=0.02),
    "hit rate 15 % (ml-100k)": World("hit", 943, 0.004, rate=0.15),
    "nDCG@10 of hits at 15 %": World("gain", 943, 0.004, rate=0.15),
    "hit rate 7 % (amazon-instruments)": World("hit", 10_000, 0.002, rate=0.07),
}
SEEDS = ((2, 2), (3, 3), (5, 5))
HEAD = """# The comparison's statistics, by simulation

`python benchmarks/quality/simulation.py` draws users, runs and what is left anew in every
repetition and asks `recsys.comparison.statistics` about two methods. *Covers*: the 95 % interval
of the difference contains the true one; *covers one* the same for the mean of one method. *Size*:
rejected at 5 % without a true difference. *Power*: rejected with a true difference as large as the
mean of what `smallest` reports; aimed at 80 %. Half of the repetitions for 10,000 users.
Spread, width and smallest are in the metric's unit, in hundredths.
"""


def cells(count: int) -> list[str]:
    """The table of all worlds and numbers of seeds."""
    lines = [
        "| metric | users | spread over seeds | seeds | covers | covers one | size | power "
        "| width | smallest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for place, (name, world) in enumerate(WORLDS.items()):
        number = count // 2 if world.users > LARGE else count
        for runs in SEEDS:
            null = repeat(world, runs, 0.0, number, 100 + place)
            shift = null.smallest / truth(world, 1.0)
            there = repeat(world, runs, shift, number, 200 + place)
            shares = (null.covered, null.single, null.rejected, there.rejected)
            sizes = (100 * null.width, 100 * null.smallest)
            lines.append(
                f"| {name} | {world.users:,} | {100 * world.spread:g} | {runs[0]}, {runs[1]} | "
                + " | ".join(f"{100 * x:.1f}" for x in shares)
                + " | "
                + " | ".join(f"{x:.3g}" for x in sizes)
                + " |"
            )
            print(lines[-1], flush=True)
    return lines


def one_method(count: int) -> list[str]:
    """The table of comparisons of a method with itself."""
    lines = [
        "| metric | groups of 2 | groups of 3 | groups of 5 | single runs, spread from 1 method "
        "| from 3 methods | single runs, spread not known |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, (name, world) in enumerate(WORLDS.items()):
        if world.fixed:  # the same as the worlds without it, of one method
            continue
        number = max(1, count // (50 if world.users > LARGE else 25))
        shares = [pairs(world, group, number, 300 + place) for group in (2, 3, 5)]
        shares += [single_pairs(world, others, number, 400 + place) for others in (1, 3, 0)]
        lines.append(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in shares) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Runs the simulation and writes the page."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    start = time.monotonic()
    first = cells(count)
    second = one_method(count)
    words = (
        "## A method compared with itself\n\n"
        "20 runs of one method, all pairs of disjoint groups, percent rejected at 5 %; of single\n"
        "runs every sixth pair. With one run a side, the spread over seeds is pooled over other\n"
        "methods of three runs; without it the finding is about two *models*, and two models of\n"
        "one method do differ. Pairs share their users and runs, so these shares are less certain\n"
        f"than their number suggests: {count // 25} draws of users and runs, {count // 50} of\n"
        "10,000 users."
    )
    seconds = time.monotonic() - start
    error = 196 * math.sqrt(0.05 * 0.95 / count)
    foot = (
        f"{count} repetitions of {DRAWS} draws, {seconds:.0f} s: a true share of 5 % shows as\n"
        f"5 ± {error:.1f} in 95 % of the cells, ± {error * math.sqrt(2):.1f} for 10,000 users."
    )
    page = "\n\n".join([HEAD.rstrip(), "\n".join(first), words, "\n".join(second), foot])
    PAGE.write_text(page + "\n")


if __name__ == "__main__":
    main()
