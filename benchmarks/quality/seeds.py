"""The comparison's test on real runs: 20 seeds of one method, and a difference planted into them.

Usage: python benchmarks/quality/seeds.py DATA RUNS

DATA holds `ml-100k`; RUNS is a folder for the runs, outside of the project (`study.py` uses the
same; a run that is there is kept). Writes `seeds.md` beside this file. Two groups of runs of one
method differ by chance alone: the share of pairs that the test rejects at 5 % is its size on this
data. Then one group of each pair is made better by one point of nDCG@10, and the share that is
found is its power, beside the smallest difference that the comparison says it can find.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from cells import fit
from numpy.typing import NDArray
from words import SMALL, TOWERS, TUNINGS

from recsys.compare.comparable import check_comparable
from recsys.compare.finished_runs import read_run
from recsys.compare.measures.case_values import make_clusters, stack_per_case
from recsys.compare.methods import group_runs
from recsys.compare.statistics.contrasts import (
    compute_contrast,
    pool_seed_degrees,
    pool_seed_variance,
)

Array = NDArray[np.float64]
HERE = Path(__file__).resolve().parent
SEEDS = 20
POINT = 0.01
PLANTED = 0.5
"""nDCG of a target at rank 3: what a missed case gets where a difference is planted."""
PARTITIONS = {2: 40, 3: 40, 5: 40, 10: 200}
"""By runs of a group; of groups of ten a partition has one pair only."""
DRAWS = 500


@dataclass(frozen=True)
class Share:
    """What the comparisons of one kind found.

    Attributes:
        pairs: Number of comparisons.
        rejected: Share with p of at most 5 %.
        covered: Share whose 95 % interval holds the true difference.
        smallest: Mean of the smallest difference that the comparison says it can find.
    """

    pairs: int
    rejected: float
    covered: float
    smallest: float


def measured(root: Path, runs: Path) -> tuple[Array, NDArray[np.int64]]:
    """nDCG@10 of the test cases by run, `(20, N)`, and the user of each case, `(N,)`."""
    words = [*TOWERS, *TUNINGS["frozen"], *SMALL]
    folders = [
        fit(root, runs / "seeds" / f"frozen-{seed}", "ml-100k", words, seed)
        for seed in range(SEEDS)
    ]
    found = [read_run(folder) for folder in folders if folder is not None]
    if len(found) < SEEDS:
        raise SystemExit(f"{SEEDS - len(found)} of {SEEDS} runs diverged: there is no page.")
    check_comparable(found)
    (method,) = group_runs(found)
    return stack_per_case(method, "ndcg@10"), make_clusters(found[0])


def planted(values: Array, rng: np.random.Generator) -> Array:
    """Runs that find so many missed targets more, at rank 3, that they gain one point in the mean.

    Which ones is drawn anew for each run, so that the planted difference differs over runs and
    users as a real one does.
    """
    missed = values == 0
    share = POINT / PLANTED / missed.mean(1, keepdims=True)
    return np.where(missed & (rng.random(values.shape) < share), PLANTED, values)


def groups(size: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Pairs of disjoint groups of runs, of one partition of all of them."""
    several = rng.permutation(SEEDS)[: SEEDS // size * size].reshape(-1, size)
    yield from combinations(several, 2)


def compared(values: Array, users: NDArray[np.int64], size: int, true: float) -> Share:
    """All pairs of groups over some partitions; the first of a pair is better by `true`."""
    found = []
    for number in range(PARTITIONS[size]):
        rng = np.random.default_rng([size, number])
        for first, second in groups(size, rng):
            better = planted(values[first], rng) if true else values[first]
            result = compute_contrast(better, values[second], users, draws=DRAWS, seed=number)
            found.append((result.p <= 0.05, result.low <= true <= result.high, result.smallest))
    return Share(len(found), *(float(x) for x in np.mean(np.array(found, dtype=float), axis=0)))


def singles(values: Array, users: NDArray[np.int64], lend: bool) -> Share:
    """All 190 pairs of single runs; their spread over seeds from the 18 others, or not known."""
    found = []
    for first, second in combinations(range(SEEDS), 2):
        others = [np.delete(values, [first, second], axis=0)] if lend else []
        result = compute_contrast(
            values[[first]],
            values[[second]],
            users,
            seed_variance=pool_seed_variance(others),
            seed_degrees=pool_seed_degrees(others),
            draws=DRAWS,
        )
        found.append((result.p <= 0.05, result.low <= 0 <= result.high, result.smallest))
    return Share(len(found), *(float(x) for x in np.mean(np.array(found, dtype=float), axis=0)))


def row(name: str, share: Share, power: Share | None) -> str:
    """A line of the table."""
    cells = [f"{share.pairs:,}", f"{100 * share.rejected:.1f}", f"{100 * share.covered:.1f}"]
    cells.append(f"{100 * share.smallest:.2f}")
    cells += (
        ["-", "-"]
        if power is None
        else [
            f"{100 * power.rejected:.0f}",
            f"{100 * power.covered:.1f}",
        ]
    )
    return f"| {name} | " + " | ".join(cells) + " |"


def main(argv: list[str]) -> int:
    """Runs what is missing and writes the page."""
    if len(argv) != 2 or not Path(argv[0]).is_dir():
        print(__doc__)
        return 2
    values, users = measured(Path(argv[0]).resolve(), Path(argv[1]).resolve())
    lines = [
        "| runs a side | pairs | rejected, % | interval holds 0, % | smallest, points "
        "| one point planted: found, % | interval holds it, % |",
        "|---|---:|---:|---:|---:|---:|---:|",
        row("1, spread over seeds not known", singles(values, users, lend=False), None),
        row("1, spread from the other 18", singles(values, users, lend=True), None),
    ]
    for size in PARTITIONS:
        null, there = (compared(values, users, size, true) for true in (0.0, POINT))
        lines.append(row(str(size), null, there))
    each = 100 * values.mean(1)
    head = (
        "# The comparison's test on 20 seeds of one method\n\n"
        "`python benchmarks/quality/seeds.py DATA RUNS`: heads on the frozen small BERT under two "
        f"towers, ml-100k,\nnDCG@10 of {values.shape[1]} test cases of {len(np.unique(users))} "
        f"users, whole catalog. The runs reach {each.mean():.2f} ± {each.std(ddof=1):.2f}\n"
        f"points ({each.min():.2f} to {each.max():.2f}). All pairs of disjoint groups of "
        f"many partitions, {DRAWS} draws a test. Every pair comes\nfrom the same 20 runs "
        "and the same users, so that the shares are less certain than their number suggests.\n"
        "*Rejected*: at 5 %, without a true difference. *Planted*: missed targets of one side are "
        "put at rank 3, drawn\nanew for each run, so many that it gains one point.\n"
    )
    (HERE / "seeds.md").write_text("\n".join([head, *lines]) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
