"""Coverage, size and power of the comparison's statistics, by simulation.

Usage: python benchmarks/quality/simulation.py [SECTION [REPETITIONS]] ...

Writes `statistics.md` beside this file from what `statistics.json` keeps of each section; those
that are named are drawn anew, all without a name: `spreads` and `families` (`spreads.py`),
`metrics` and `itself`. Every world has known truth: users, runs and what is left are drawn anew in
each repetition, so that a claim about methods can be right or wrong.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import spreads
from numpy.typing import NDArray

from recsys.compare.statistics.contrasts import (
    compute_contrast,
    estimate_mean,
    pool_seed_degrees,
    pool_seed_variance,
)
from recsys.compare.statistics.resampling import flip_signs
from recsys.compare.statistics.variance import compute_components

Array = NDArray[np.float64]
PAGE = Path(__file__).resolve().parent / "statistics.md"
DRAWS = 500
LARGE = 4000  # users from which on a world gets half of the repetitions
EVERY = {2: 3, 3: 1, 5: 1}
"""Of the pairs of groups of so many runs, one in so many is compared."""


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
    """What many repetitions of one cell found, as means."""

    covered: float
    single: float
    rejected: float
    found: float
    width: float
    smallest: float


def repeat(world: World, runs: tuple[int, int], count: int, seed: int) -> Tally:
    """Repetitions of one contrast without a difference, and of one as large as it can show."""
    level = truth(world, 0.0 if world.kind in ("normal", "heavy") else world.rate)
    rows = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (a, b), owner = draw(world, list(runs), 0.0, rng)
        found = compute_contrast(a, b, owner, draws=DRAWS, seed=number)
        alone = estimate_mean(b, owner, draws=DRAWS, seed=number)
        smallest = found.smallest or 0.0
        again, owner = draw(world, list(runs), smallest / truth(world, 1.0), rng)
        rows.append(
            (
                found.low <= 0 <= found.high,
                alone.low <= level <= alone.high,
                found.p <= 0.05,
                p_of(again[0], again[1], owner, number) <= 0.05,
                found.high - found.low,
                smallest,
            )
        )
    return Tally(*(float(x) for x in np.mean(np.array(rows, dtype=float), axis=0)))


def p_of(
    a: Array,
    b: Array,
    owner: NDArray[np.int64],
    number: int,
    known: tuple[float, int] | None = None,
) -> float:
    """The p of `compute_contrast`, without its interval."""
    source = compute_components([a, b], owner, known)
    return flip_signs(source, DRAWS, np.random.default_rng(number)).compute_p()


def pairs(world: World, group: int, count: int, seed: int) -> float:
    """Share of the comparisons of disjoint groups of 20 runs of one method that is rejected."""
    rejected = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (values,), owner = draw(world, [20], 0.0, rng)
        groups = np.split(rng.permutation(20)[: 20 // group * group], 20 // group)
        rejected += [
            p_of(values[a], values[b], owner, number) <= 0.05
            for a, b in list(combinations(groups, 2))[:: EVERY[group]]
        ]
    return float(np.mean(rejected))


def single_pairs(world: World, others: int, count: int, seed: int) -> float:
    """Share of every twelfth of the 190 pairs of single runs of one method that is rejected.

    The spread over seeds is pooled over `others` further methods of three runs each.
    """
    rejected = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        (values, *rest), owner = draw(world, [20, *[3] * others], 0.0, rng)
        variance, degrees = pool_seed_variance(rest), pool_seed_degrees(rest)
        rejected += [
            p_of(
                values[[i]],
                values[[j]],
                owner,
                number,
                None if variance is None else (variance, degrees),
            )
            <= 0.05
            for i, j in list(combinations(range(20), 2))[number % 12 :: 12]
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
repetition and asks `recsys.compare` about methods of which the truth is known. An interval holds
exactly the differences that the test does not reject, so that it covers in 100 % less the share
rejected, whatever the true difference is.

- No cell claims more than it says: single contrasts stay at 5 % within their Monte Carlo interval,
  families of five below it. Before, two seeds beside a stable baseline gave a false claim in
  26 % of families, three in 15 %.
- What it costs, where both sides have seeds: of differences of four standard errors two seeds a
  side find a quarter to two thirds of what they found, three lose up to a quarter, five up to 4
  points of a hundred. Beside a method without seeds nothing changes.
- Give both sides as many seeds: 2 beside 5 is little better than 2 beside 2.
"""
SPREADS = """## Seeds that spread unequally

60 users; noise of the users *small*, *alike* and *large*: 1/25, 1 and 25 times the variance that
the runs bring. *No seeds*: b is one deterministic run (EASE, popularity). *Before*: degrees of
freedom from the estimated spreads (Satterthwaite); *now*: spreads drawn (`statdraws`); in brackets
the 95 % Monte Carlo interval. *4 errors found*: a true difference of four standard errors (as they
truly are) is rejected at 5 %, in percent: the power given up. *Own smallest found*: each
repetition's own figure of what can be shown, planted into a further repetition, in percent of 150
(80 is 80 ± 6): about 80 or more.
"""
FAMILIES = """## Families after Holm

Any false claim among the contrasts of five rivals to one baseline, in percent.
"""
METRICS = """## Metrics

*Covers*: the 95 % interval of the difference contains the true one, 0; *covers one* the same for
the mean of one method. *Size*: rejected at 5 % without a true difference. *Found*: rejected with a
true difference as large as each repetition's own `smallest`; promised are about 80 % or more.
Spread, width and smallest are in the metric's unit, in hundredths. Half of the repetitions for
10,000 users.
"""
ITSELF = """## A method compared with itself

20 runs of one method, pairs of disjoint groups (of groups of 2 every third, of single runs every
twelfth), percent rejected at 5 %. With one run a side, the spread over seeds is pooled over other
methods of three runs; without it the finding is about two *models*, and two models of one method
do differ. Pairs share their users and runs, so these shares are less certain than their number
suggests.
"""


def cells(count: int) -> list[str]:
    """The table of all worlds and numbers of seeds."""
    lines = [
        "| metric | users | spread over seeds | seeds | covers | covers one | size | found "
        "| width | smallest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for place, (name, world) in enumerate(WORLDS.items()):
        number = count // 2 if world.users > LARGE else count
        for runs in SEEDS:
            found = repeat(world, runs, number, 100 + place)
            shares = (found.covered, found.single, found.rejected, found.found)
            sizes = (100 * found.width, 100 * found.smallest)
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
    """The table of comparisons of a method with itself, from so many draws of users and runs."""
    lines = [
        "| metric | groups of 2 | groups of 3 | groups of 5 | single runs, spread from 1 method "
        "| from 3 methods | single runs, spread not known |",
        "|---|---|---|---|---|---|---|",
    ]
    for place, (name, world) in enumerate(WORLDS.items()):
        if world.fixed:  # the same as the worlds without it, of one method
            continue
        number = count // 2 if world.users > LARGE else count
        shares = [pairs(world, group, number, 300 + place) for group in (2, 3, 5)]
        shares += [single_pairs(world, others, number, 400 + place) for others in (1, 3, 0)]
        lines.append(f"| {name} | " + " | ".join(f"{100 * x:.1f}" for x in shares) + " |")
        print(lines[-1], flush=True)
    return lines


SECTIONS = {
    "spreads": (SPREADS, spreads.contrasts, 2000, spreads.DRAWS),
    "families": (FAMILIES, spreads.families, 2000, spreads.DRAWS),
    "metrics": (METRICS, cells, 1000, DRAWS),
    "itself": (ITSELF, one_method, 20, DRAWS),
}
"""Words, table, repetitions and draws of each."""


def write(kept: dict[str, dict[str, object]]) -> None:
    """The page of the sections that are there."""
    blocks = [HEAD.rstrip()]
    for name, (words, _, _, draws) in SECTIONS.items():
        if name not in kept:
            continue
        lines, count, seconds = (kept[name][key] for key in ("lines", "count", "seconds"))
        if not isinstance(lines, list) or not isinstance(count, int):
            raise SystemExit(f"statistics.json: {name} has no lines or no count; draw it anew.")
        error = 196 * math.sqrt(0.05 * 0.95 / count)
        blocks += [words.rstrip(), "\n".join(lines)]
        told = f"{count:,} repetitions of {draws:,} draws, {seconds} CPU seconds"
        if name != "itself":
            told += f": a true share of 5 % shows as 5 ± {error:.1f} in 95 % of the cells"
        blocks.append(told + ".")
    PAGE.write_text("\n\n".join(blocks) + "\n")


def main(argv: list[str]) -> int:
    """Draws the sections and writes the page."""
    record = PAGE.with_suffix(".json")
    counts = {name: count for name, (_, _, count, _) in SECTIONS.items()}
    asked: list[str] = []
    for word in argv:
        if word.isdigit() and asked:
            counts[asked[-1]] = int(word)
        elif word in SECTIONS:
            asked.append(word)
        else:
            print(__doc__)
            return 2
    for name in asked or SECTIONS:
        begun = time.process_time()
        lines = SECTIONS[name][1](counts[name])
        found = {
            "lines": lines,
            "count": counts[name],
            "seconds": round(time.process_time() - begun),
        }
        # Read only now: another section may have been drawn beside this one.
        kept = json.loads(record.read_text()) if record.is_file() else {}
        kept[name] = found
        record.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
