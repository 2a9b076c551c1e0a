"""How strongly the in-batch softmax should correct for popular items: `objective.logq`.

Usage: python benchmarks/quality/logq.py [DATA RUNS [WORD ...]]

DATA holds `ml-100k`, `amazon-instruments` and `movietweetings`; RUNS is a folder for the runs,
outside of the project. Validation parts decide, by the mean of nDCG@10 over warm and over cold
targets: the mean over all targets hides cold ones, of which a validation part has fewer than a
test part. A run that RUNS already has is kept. With words, only runs whose name holds one of them
are measured; several commands may work side by side. The word `test` reads the test part, for the
chosen strength alone. The record is `logq.json`; without DATA the page is written from it.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from cells import Busy, fit, slug

HERE = Path(__file__).resolve().parent
RECORD, PAGE, HEAD = HERE / "logq.json", HERE / "logq.md", HERE / "logq-head.md"

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW_STRENGTHS = (0.0, 0.5, 1.0)
"""Of what takes longer, or has no cold targets to decide by."""
SEEDS = (100, 101)
"""No table uses them."""
CHOSEN = 0.5
COMMON = ["evaluation.max_cases=3000", "evaluation.beyond=false", "trainer.threads=1"]
SETS: dict[str, list[str]] = {
    "ml-100k": [],
    "amazon-instruments": ["data.train_users=3000"],
    "movietweetings": ["data.train_users=3000"],
}
FROZEN, TRAINED = "frozen MiniLM", "top layer of MiniLM"
METHODS = {
    FROZEN: ["experiment=frozen_two_tower"],
    TRAINED: ["experiment=top_layers_two_tower", "tuning.layers=1", "trainer.epochs=3"],
}
FEWER = {TRAINED: ["data.train_users=1000"]}
WARM, COLD = "warm/ndcg@10", "cold/ndcg@10"
METRICS = ("ndcg@10", WARM, COLD, "hr@10", "warm/hr@10", "cold/hr@10")
START = "before training"
LEAST = 30
"""Cold targets that a mean over them is shown for."""


class Cell(NamedTuple):
    """A run.

    Attributes:
        data: The data set.
        method: What is trained.
        logq: The strength.
        seed: Its seed.
        test: Whether it reads the test part.
    """

    data: str
    method: str
    logq: float
    seed: int
    test: bool

    @property
    def name(self) -> str:
        """Its folder in RUNS."""
        part = "test " if self.test else ""
        return slug(f"{self.data} {self.method} {part}logq {self.logq:g} seed {self.seed}")

    @property
    def words(self) -> list[str]:
        """Its words, but for data and seed; a later one stands for an earlier of its key."""
        every = [*METHODS[self.method], *SETS[self.data], *FEWER.get(self.method, []), *COMMON]
        by_key = {word.partition("=")[0]: word for word in every}
        unseen = [] if self.test else ["evaluation.test=false"]
        return [*by_key.values(), f"objective.logq={self.logq:g}", *unseen]


def cells() -> list[Cell]:
    """Every run: what decides first, seed by seed, then the test part of the chosen strength."""
    crossed = [
        (data, method)
        for method in METHODS
        for data in SETS
        if method == FROZEN or data == "movietweetings"
    ]
    seen = [
        Cell(data, method, logq, seed, False)
        for seed in SEEDS
        for data, method in crossed
        for logq in (STRENGTHS if method == FROZEN and data != "ml-100k" else FEW_STRENGTHS)
    ]
    return [*seen, *(Cell(data, FROZEN, CHOSEN, seed, True) for seed in SEEDS for data in SETS)]


def measure(root: Path, runs: Path, asked: list[str]) -> None:
    """The runs that are missing, if a word asks for them; another process may have one in hand."""
    words = [word for word in asked if word != "test"]
    for cell in cells():
        if cell.test == ("test" in asked) and (
            not words or any(word in cell.name for word in words)
        ):
            try:
                fit(root, runs / cell.name, cell.data, cell.words, cell.seed)
            except Busy:
                continue


def collect(runs: Path) -> dict[str, dict[str, Any]]:
    """What the runs found, by name; those that RUNS has not got stay as they were recorded."""
    out: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for cell in cells():
        for path in (runs / cell.name).glob("*/result.json"):
            result = json.loads(path.read_text())
            with (path.parent / "log" / "metrics.csv").open(newline="") as file:
                lines = [row for row in csv.DictReader(file) if row.get("val/ndcg@10")]
            found = result["test"] if cell.test else result["validation"]["metrics"]
            floor = result["floors"].get("zero-shot") if cell.test else None
            out[cell.name] = {
                "command": "python -m recsys.fit " + " ".join(cell.words),
                "seed": cell.seed,
                "found": {k: found[k] for k in (*METRICS, "cases", "cold/cases")},
                "start": (
                    {k: number(lines[0][f"val/{k}"]) for k in METRICS}
                    if floor is None
                    else {k: floor[k] for k in METRICS}
                ),
                "step": result["validation"]["step"],
                "steps": result["validation"]["steps"],
                "epochs": result["validation"]["epochs"],
                **{k: result[k] for k in ("cost", "data", "versions")},
            }
    return out


def number(cell: str) -> float:
    """A cell of the log; an empty one has no value."""
    return float(cell) if cell else float("nan")


def both(found: dict[str, float]) -> float:
    """What decides: the mean over warm and over cold targets, each counting half."""
    return (found[WARM] + found[COLD]) / 2


def known(found: dict[str, float], cold: float) -> dict[str, float]:
    """The metrics; those of cold targets have no value where there are too few of these."""
    return {k: v if cold >= LEAST or "cold/" not in k else float("nan") for k, v in found.items()}


def shown(values: list[float]) -> str:
    """Mean and, over several seeds, standard deviation, in percent."""
    if any(value != value for value in values):
        return "-"
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread}"


def row(name: str, found: list[dict[str, float]], more: str) -> str:
    """A row of a table."""
    metrics = [shown([each[key] for each in found]) for key in METRICS]
    decides = shown([both(each) for each in found])
    return f"| {name} | **{decides}** | " + " | ".join(metrics) + f" | {more} |"


def table(record: dict[str, dict[str, Any]], data: str, method: str, test: bool) -> list[str]:
    """A table of a data set and a method; empty without runs."""
    by_strength = {
        logq: [
            record[cell.name]
            for seed in SEEDS
            if (cell := Cell(data, method, logq, seed, test)).name in record
        ]
        for logq in ((CHOSEN,) if test else STRENGTHS)
    }
    every = [run for runs in by_strength.values() for run in runs]
    if not every:
        return []
    counts = every[0]["found"]
    part = "test" if test else "validation"
    out = [
        "",
        f"### {data}, {method}, {part}",
        "",
        f"{counts['cases']:,.0f} cases, {counts['cold/cases']:,.0f} of them cold.",
        "",
        "| logq | mean of warm and cold | " + " | ".join(METRICS) + " | kept step of steps |",
        "|---" * (len(METRICS) + 3) + "|",
        row(START, [known(every[0]["start"], counts["cold/cases"])], "0"),
    ]
    for logq, runs in by_strength.items():
        if runs:
            kept = ", ".join(f"{run['step']} of {run['steps']}" for run in runs)
            found = [known(run["found"], counts["cold/cases"]) for run in runs]
            out.append(row(f"{logq:g}", found, kept))
    return out


def summary(record: dict[str, dict[str, Any]]) -> list[str]:
    """What decides, by strength: each set with cold targets, and the mean over them."""
    sets = [data for data in SETS if data != "ml-100k"]
    out = ["", "| logq | " + " | ".join(f"{d}: mean, cold" for d in sets) + " | mean of both |"]
    out.append("|---" * (len(sets) + 2) + "|")
    for logq in STRENGTHS:
        names = {data: [Cell(data, FROZEN, logq, s, False).name for s in SEEDS] for data in sets}
        there = {d: [record[n]["found"] for n in ns if n in record] for d, ns in names.items()}
        if all(there.values()):
            means = [mean(map(both, found)) for found in there.values()]
            colds = [mean(each[COLD] for each in found) for found in there.values()]
            cells = [f"{shown([m])}, {shown([c])}" for m, c in zip(means, colds, strict=True)]
            out.append(f"| {logq:g} | " + " | ".join(cells) + f" | {shown([mean(means)])} |")
    return out


def page(record: dict[str, dict[str, Any]]) -> list[str]:
    """The page, in Markdown."""
    out = [*HEAD.read_text().splitlines(), *summary(record)]
    for test in (False, True):
        for method in METHODS:
            for data in SETS:
                out += table(record, data, method, test)
    return out


def main(argv: list[str]) -> int:
    """Measures what is missing, then writes the record and the page."""
    if argv and (len(argv) < 2 or not Path(argv[0]).is_dir()):
        print(__doc__)
        return 2
    if argv:
        root, runs, *asked = argv
        measure(Path(root).resolve(), Path(runs).resolve(), asked)
        record = collect(Path(runs).resolve())
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    PAGE.write_text("\n".join(page(json.loads(RECORD.read_text()))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
