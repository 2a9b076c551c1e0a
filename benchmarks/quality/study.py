"""The study: every tuning method under every architecture, seeds and users side by side.

Usage: python benchmarks/quality/study.py DATA RUNS [rates | rates=SEARCH | TABLE ...]

DATA holds `ml-100k` and `amazon-instruments`; RUNS is a folder for the runs, outside of the
project: their cases name users and items. A cell that RUNS already has is kept, one that was
stopped goes on, and one that was run with other words is refused. `rates` chooses the learning
rates on validation parts, with a seed that the tables do not use; tables come after it. Several
commands may work on one table side by side: a cell is measured by one of them. What is compared,
and against which margin, was written down before the first run: `plan.md`. Each table ends as
`study/TABLE.md` and `study/TABLE.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from cells import Busy, fit, slug
from rates import RATES, SEARCHES, choose_rates, words_of
from words import (
    ARCHITECTURES,
    CASES,
    DRAWN,
    FEW,
    LAST_TWO,
    LISTS,
    MATCHED,
    MINILM,
    SHORT,
    SMALL,
    TEXTS,
    TIMED,
    TITLES,
    TUNINGS,
    TWICE,
    UNTRAINED,
)

PAGES = RATES.parent
MARGIN = 0.5
"""Percent points of nDCG@10 that do not matter."""


@dataclass(frozen=True)
class Table:
    """Runs that are compared with each other.

    Attributes:
        data: Folder of the data set.
        cells: Words of each method, by name.
        baseline: The method that the others are compared with.
        common: Words of all of them.
        seeds: Runs of each method.
    """

    data: str
    cells: dict[str, list[str]]
    baseline: str
    common: list[str] = field(default_factory=list)
    seeds: int = 3


def tables(rates: dict[str, dict[str, float]]) -> dict[str, Table]:
    """Every table of the study.

    Args:
        rates: The chosen learning rate of each tuning method under each architecture.
    """
    out: dict[str, Table] = {}
    for data, name in SHORT.items():
        more = {"cross-encoder": TWICE} if data == "ml-100k" else {}
        some, cases = (FEW, CASES) if data == "amazon-instruments" else ([], [])
        every = {
            architecture: {
                f"{tuning}, {architecture}": [
                    *base,
                    *more.get(architecture, []),
                    *words,
                    *words_of(tuning, rates[search]),
                ]
                for tuning, words in TUNINGS.items()
            }
            for architecture, (search, base) in ARCHITECTURES.items()
        }
        towers = every["two towers"]
        matched = {name: [*words, *MATCHED] for name, words in towers.items()}
        lists = {**matched, **every["cross-encoder"], **_floors("popularity", "tfidf")}
        lists["reversed popularity"] = UNTRAINED["reversed popularity"]
        start = "frozen, two towers"
        out[f"{name}-lists"] = Table(data, lists, start, [*SMALL, *some, *LISTS])
        ids = {"SASRec on ids": ["experiment=sasrec"]}
        known = _floors("popularity", "tfidf", "item kNN", "EASE")
        whole = [*SMALL, *some, *cases]
        out[f"{name}-catalog"] = Table(
            data, {**towers, **every["two towers, causal"], **ids, **known}, start, whole
        )
        timed = data == "ml-100k"
        alone = {start: towers[start], **ids}
        absent = ("reversed popularity",) if timed else ("reversed popularity", *TIMED)
        alone |= {k: words for k, words in UNTRAINED.items() if k not in absent}
        out[f"{name}-texts"] = Table(data, TEXTS, "ids", whole)
        out[f"{name}-baselines"] = Table(data, alone, "popularity", SMALL)
    minilm = {k: [*MINILM, *words, *words_of(k, rates["MiniLM"])] for k, words in LAST_TWO.items()}
    minilm |= _floors("popularity", "tfidf", "item kNN", "EASE")
    out["minilm"] = Table("amazon-instruments", minilm, "frozen", TITLES)
    return out


def _floors(*names: str) -> dict[str, list[str]]:
    """Methods that do not train, by name."""
    return {name: UNTRAINED[name] for name in names}


def measure(root: Path, runs: Path, name: str, table: Table) -> None:
    """Every missing cell of a table, seed by seed, so that a stop leaves whole seeds.

    Waits for the cells that other processes measure.
    """
    left = [
        (cell, seed)
        for seed in range(table.seeds)
        for cell in table.cells
        if not seed or cell not in UNTRAINED
    ]
    while left:
        busy = []
        for cell, seed in left:
            folder = runs / name / f"{slug(cell)}-{seed}"
            try:
                fit(root, folder, table.data, [*table.cells[cell], *table.common], seed)
            except Busy:
                busy.append((cell, seed))
        left = busy
        if left:
            time.sleep(10)


def write(runs: Path, name: str, table: Table) -> None:
    """The comparison of a table's cells, without the users and items of its examples."""
    found = {
        cell: [
            str(path.parent)
            for seed in range(table.seeds)
            for path in (runs / name / f"{slug(cell)}-{seed}").glob("*/result.json")
        ]
        for cell in table.cells
    }
    cells = {cell: there for cell, there in found.items() if there}
    names, output = runs / f"{name}-names.json", runs / f"{name}-report"
    names.write_text(json.dumps(cells, indent=1) + "\n")
    command = [f"names={names}", f"baseline={table.baseline}", f"margin={MARGIN}"]
    command += [f"family={name}", f"output={output}", "slices=cold,history,popularity"]
    command += ["metric=ndcg@10"] if LISTS[0] not in table.common else [f"metric={DRAWN}"]
    subprocess.run([sys.executable, "-m", "recsys.compare", *command], check=True)
    PAGES.mkdir(exist_ok=True)
    before, _, after = (output / "report.md").read_text().partition("\n## Users\n")
    (PAGES / f"{name}.md").write_text(before + "\n## " + after.partition("\n## ")[2])
    content = json.loads((output / "comparison.json").read_text())
    content.pop("users", None)
    (PAGES / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def main(argv: list[str]) -> int:
    """Chooses rates, runs what is missing and writes the pages."""
    if len(argv) < 2 or not Path(argv[0]).is_dir():
        print(__doc__)
        return 2
    root, runs, asked = Path(argv[0]).resolve(), Path(argv[1]).resolve(), argv[2:]
    searches = [name for name in SEARCHES if "rates" in asked or f"rates={name}" in asked]
    if searches or not RATES.is_file():
        choose_rates(root, runs, searches or list(SEARCHES))
    every = tables(json.loads(RATES.read_text())["chosen"])
    named = [name for name in asked if name.partition("=")[0] != "rates"]
    known = [*every, "rates", *(f"rates={name}" for name in SEARCHES)]
    unknown = [name for name in asked if name not in known]
    if unknown:
        print(f"{unknown[0]} is no table; there are {', '.join(known)}.")
        return 2
    for name in named or (() if asked else every):
        measure(root, runs, name, every[name])
        write(runs, name, every[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
