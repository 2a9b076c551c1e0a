"""Hybrids of ids and texts: what both together gain, and what a tuned encoder adds to them.

Usage: python benchmarks/quality/hybrids.py DATA RUNS [TABLE ...]

DATA holds the folders `ml-100k`, `amazon-instruments`, `movietweetings`, `online-retail`,
`goodreads` and `amazon-office`; RUNS is a folder for the runs, outside of the project. What is
compared was written down before the first run: `hybrids-plan.md`. The tables are those of
`hybrid_rows.py`. A cell that RUNS already has is kept, one that was stopped goes on; several
commands may work side by side. Each table ends as `hybrids/TABLE.md` and `hybrids/TABLE.json`; all
together are summed up in `hybrids.md`, below what `hybrids-head.md` says.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cells import Busy, alone, fit, slug
from hybrid_pages import PAGES, render, write_summary
from hybrid_rows import METRIC, SEEDS, TABLES, Row, Table
from rates import RATES
from words import SETS

from recsys.compare.finished_runs import read_run
from recsys.compare.measures.cost import compute_costs
from recsys.compare.methods import Method
from recsys.compare.outcome import ComparisonSettings
from recsys.compare.paired import PairedStatistics
from recsys.compare.statistics.contrasts import adjust_holm

MARGIN = 0.5
"""Percent points of nDCG@10 that do not matter."""


class Cell(NamedTuple):
    """A run of a row."""

    name: str
    seed: int


def list_cells(rows: Mapping[str, Row]) -> Iterator[Cell]:
    """All runs, seed by seed, so that a stop leaves whole seeds."""
    for seed in range(SEEDS):
        for name, row in rows.items():
            if row.seeded or not seed:
                late = f":{SEEDS - 1}}}" in " ".join(row.words)
                if not late:
                    yield Cell(name, seed)
    for name, row in rows.items():
        if f":{SEEDS - 1}}}" in " ".join(row.words):
            yield Cell(name, 0)


def measure(root: Path, runs: Path, table: Table, rows: Mapping[str, Row]) -> None:
    """Every missing run of a table; waits for those that other processes measure."""
    left = list(list_cells(rows))
    while left:
        busy = []
        for cell in left:
            try:
                _run_cell(root, runs, table, rows, cell)
            except (Busy, FileNotFoundError):  # it, or what it builds on, is measured elsewhere
                busy.append(cell)
        left = busy
        if left:
            time.sleep(10)


def _run_cell(root: Path, runs: Path, table: Table, rows: Mapping[str, Row], cell: Cell) -> None:
    row, folder = rows[cell.name], runs / f"{slug(cell.name)}-{cell.seed}"
    words = [*(fill(word, runs, rows, cell.seed) for word in row.words), *table.own]
    if row.module == "recsys.fit":
        fit(root, folder, table.data, [*words, *table.common], cell.seed)
    else:
        _pretrain(root, folder, table.data, words, cell.seed)


def fill(word: str, runs: Path, rows: Mapping[str, Row], seed: int) -> str:
    """A word with the folders of the runs that it names, and `{seed}` as the seed.

    Raises:
        FileNotFoundError: One of them is not there yet.
    """

    def find(match: re.Match[str]) -> str:
        name, _, number = match[1].partition(":")
        if name == "seed":
            return str(seed)
        if name not in rows:  # braces of YAML or of a template
            return match[0]
        of = int(number or (seed if rows[name].seeded else 0))
        for result in (runs / f"{slug(name)}-{of}").glob("*/result.json"):
            return str(result.parent)
        raise FileNotFoundError(name)

    return re.sub(r"\{([^{}]+)\}", find, word)


def _pretrain(root: Path, folder: Path, data: str, words: list[str], seed: int) -> None:
    """An encoder that is trained on pairs of titles, where it is not there yet."""
    with alone(folder):
        if list(folder.glob("*/result.json")):
            return
        print(folder.parent.name, folder.name, flush=True)
        source = [f"data.source={SETS[data]}", f"data.source.path={root / data}"]
        command = [*words, *source, f"seed={seed}", f"output={folder}", "tracking.wandb=off"]
        with (folder / "output.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "recsys.pretrain", *command],
                stdout=log,
                stderr=log,
                check=True,
            )


def read_methods(runs: Path, rows: Mapping[str, Row]) -> list[Method]:
    """What was run of each row that is shown."""
    out = []
    for name, row in rows.items():
        if not row.shown:
            continue
        done = [
            read_run(path.parent)
            for seed in range(SEEDS if row.seeded else 1)
            for path in (runs / f"{slug(name)}-{seed}").glob("*/result.json")
        ]
        if done:
            out.append(Method(name, tuple(done)))
    return out


def write(runs: Path, name: str, table: Table, rows: Mapping[str, Row]) -> None:
    """The page of a table, and its figures."""
    methods = read_methods(runs, rows)
    there = {method.label for method in methods}
    asked = [
        (row_name, other)
        for row_name, row in rows.items()
        for other in row.against
        if {row_name, other} <= there
    ]
    settings = ComparisonSettings(METRIC, methods[0].label, MARGIN, name, 0.95, None)
    statistics = PairedStatistics(methods, settings)
    statistics.contrasts = max(len(asked), 1)
    cold = methods[0].runs[0].cases["cold"].to_numpy().astype(np.bool_)
    content = {
        "cases": len(cold),
        "cold": int(cold.sum()),
        "shown": table.shown,
        "rows": {method.label: describe_method(method, table) for method in methods},
        "contrasts": compute_contrasts(statistics, asked, cold),
    }
    PAGES.mkdir(exist_ok=True)
    (PAGES / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (PAGES / f"{name}.md").write_text("\n".join([f"# {name}", "", *render(content)]) + "\n")


def describe_method(method: Method, table: Table) -> dict[str, object]:
    """Metrics over seeds as mean and deviation, and what a run costs, with what it builds on."""
    names = [f"{part}{name}" for part in ("", "warm/", "cold/") for name in table.shown]
    tests = [run.result["test"] for run in method.runs]
    figures = {}
    for name in names:
        part, _, metric = name.rpartition("/")
        key = f"{part}/{table.prefix}{metric}" if part else f"{table.prefix}{metric}"
        values = [test[key] for test in tests]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        figures[name] = [float(np.mean(values)), deviation]
    fits = [run.result.get("fit", {}).get("chosen") for run in method.runs]
    return {"seeds": method.seeds, "test": figures, "cost": compute_costs(method), "chosen": fits}


def compute_contrasts(
    statistics: PairedStatistics, asked: list[tuple[str, str]], cold: np.ndarray
) -> list[dict[str, object]]:
    """The planned differences, corrected together; warm and cold ones to look at."""
    contrasts = [statistics.compute_contrast(name, other) for name, other in asked]
    corrected = adjust_holm([contrast.p for contrast in contrasts])
    return [
        {
            "row": name,
            "against": other,
            "difference": contrast.difference,
            "low": contrast.low,
            "high": contrast.high,
            "p": p,
            "smallest": contrast.smallest,
            "warm": statistics.compute_contrast(name, other, ~cold).difference,
            "cold": statistics.compute_contrast(name, other, cold).difference
            if cold.sum() > 1
            else None,
        }
        for (name, other), contrast, p in zip(asked, contrasts, corrected, strict=True)
    ]


def main(argv: list[str]) -> int:
    """Runs what is missing and writes the pages."""
    if len(argv) < 2 or not Path(argv[0]).is_dir():
        print(__doc__)
        return 2
    root, runs, asked = Path(argv[0]).resolve(), Path(argv[1]).resolve(), argv[2:]
    unknown = [name for name in asked if name not in TABLES]
    if unknown:
        print(f"{unknown[0]} is no table; there are {', '.join(TABLES)}.")
        return 2
    rates = json.loads(RATES.read_text())["chosen"]
    for name in asked or TABLES:
        rows = TABLES[name].make(rates)
        measure(root, runs / name, TABLES[name], rows)
        write(runs / name, name, TABLES[name], rows)
        write_summary()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
