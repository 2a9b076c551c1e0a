"""Hybrids of ids and texts: what both together gain, and what a tuned encoder adds to them.

Usage: python benchmarks/quality/hybrids.py DATA RUNS [SET ...]

DATA holds the folders `ml-100k`, `amazon-instruments`, `movietweetings`, `online-retail`,
`goodreads` and `amazon-office`; RUNS is a folder for the runs, outside of the project. What is
compared was written down before the first run: `hybrids-plan.md`. A cell that RUNS already has is
kept, one that was stopped goes on; several commands may work side by side. Each set ends as
`hybrids/SET.md` and `hybrids/SET.json`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import Busy, alone, fit, slug
from rates import RATES, words_of
from words import SETS, SMALL, TOWERS

from recsys.compare.finished_runs import read_run
from recsys.compare.measures.cost import compute_costs, format_plain
from recsys.compare.methods import Method
from recsys.compare.outcome import ComparisonSettings
from recsys.compare.paired import PairedStatistics
from recsys.compare.statistics.contrasts import adjust_holm

PAGES = Path(__file__).resolve().parent / "hybrids"
MARGIN = 0.5
"""Percent points of nDCG@10 that do not matter."""
SEEDS = 3
METRIC = "ndcg@10"
COMMON = ["evaluation.max_cases=2500", f"evaluation.monitor=balanced/{METRIC}"]

OWN: dict[str, list[str]] = {
    "ml-100k": [],
    "amazon-office": ["data.source.user=user", "data.max_history=10"],
    "amazon-instruments": [],
    "movietweetings": ["data.split=time"],
    "online-retail": [],
    "goodreads": ["data.train_users=5000"],
}
"""What all rows of a set have in common, beside `COMMON`."""

TEXT_EASE = "EASE + texts"
TUNED = "LoRA"
IDS = "SASRec on ids"
PAIRS = "co-occurrence"
BUILT = "method_kept_cpu_seconds"
"""Cost of a method with all runs that it builds on and all that is kept between runs."""


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        words: Of its runs; `{NAME}` stands for the folder of that row's run of the same seed, and
            `{NAME:N}` for that of seed N.
        seeded: Whether another seed changes it.
        against: The rows that it is tested against, as the plan says.
        shown: Whether it stands in the table; an encoder that others read does not rank.
    """

    words: list[str]
    seeded: bool = True
    against: tuple[str, ...] = ()
    shown: bool = True


def make_rows(rates: Mapping[str, float]) -> dict[str, Row]:
    """All rows of a set, each after those that it builds on.

    Args:
        rates: The chosen learning rate of each tuning method.
    """

    def make_tower(*words: str) -> list[str]:
        return [*TOWERS, *SMALL, *words]

    def make_hybrid(vectors: str) -> list[str]:
        return ["experiment=ease_text", *SMALL, f"architecture.vectors={vectors}"]

    rows = {
        "popularity": Row(["experiment=popularity"], seeded=False),
        "tfidf, recency": Row(["experiment=tfidf", "architecture.history=recency"], seeded=False),
        "item kNN": Row(["experiment=item_knn"], seeded=False),
        "item kNN + texts": Row(["experiment=item_knn_text", *SMALL], False, ("item kNN",)),
        "EASE": Row(["experiment=ease"], seeded=False),
        TEXT_EASE: Row(make_hybrid("encoder"), False, ("EASE", TUNED)),
        "zero-shot": Row(["experiment=zero_shot", *SMALL], seeded=False),
        IDS: Row(["experiment=sasrec"]),
        "frozen": Row(make_tower("tuning=frozen")),
        TUNED: Row(make_tower("tuning=lora", *words_of("LoRA", dict(rates)))),
        "full": Row(make_tower("tuning=full", *words_of("full", dict(rates)))),
        "text+id": Row(["experiment=text_id_two_tower", *SMALL], against=("frozen",)),
        PAIRS: Row(["experiment=co_occurrence", *SMALL], shown=False),
    }
    for name in ("frozen", TUNED, "full"):
        rows[f"EASE + {name}"] = Row(make_hybrid(f"{{{name}}}"), against=(TEXT_EASE,))
    rows[f"EASE + {PAIRS}"] = Row(
        ["experiment=ease_text", f"encoder.model={{{PAIRS}}}", "architecture.vectors=encoder"],
        against=(TEXT_EASE,),
    )
    of_three = [f"{{{name}}}" for name in (TEXT_EASE, IDS, TUNED)]
    of_seeds = [f"{{{IDS}:{seed}}}" for seed in range(SEEDS)]
    for combine in ("rrf", "weighted", "ranker"):
        rows[f"ensemble, {combine}"] = Row(
            _make_ensemble(of_three, combine), against=(TEXT_EASE,) * (combine == "weighted")
        )
    rows[f"three seeds of {IDS}"] = Row(_make_ensemble(of_seeds, "rrf"), False, (IDS,))
    return rows


def _make_ensemble(members: list[str], combine: str) -> list[str]:
    return [
        "experiment=null",
        "architecture=ensemble",
        f"architecture.members=[{','.join(members)}]",
        f"architecture.combine={combine}",
    ]


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


def measure(root: Path, runs: Path, data: str, rows: Mapping[str, Row]) -> None:
    """Every missing run of a set; waits for those that other processes measure."""
    left = list(list_cells(rows))
    while left:
        busy = []
        for cell in left:
            try:
                _run_cell(root, runs, data, rows, cell)
            except (Busy, FileNotFoundError):  # it, or what it builds on, is measured elsewhere
                busy.append(cell)
        left = busy
        if left:
            time.sleep(10)


def _run_cell(root: Path, runs: Path, data: str, rows: Mapping[str, Row], cell: Cell) -> None:
    folder = runs / data / f"{slug(cell.name)}-{cell.seed}"
    words = [fill(word, runs / data, rows, cell.seed) for word in rows[cell.name].words]
    if cell.name == PAIRS:
        _pretrain(root, folder, data, [*words, *OWN[data]], cell.seed)
    else:
        fit(root, folder, data, [*words, *OWN[data], *COMMON], cell.seed)


def fill(word: str, runs: Path, rows: Mapping[str, Row], seed: int) -> str:
    """A word with the folders of the runs that it names.

    Raises:
        FileNotFoundError: One of them is not there yet.
    """

    def find(match: re.Match[str]) -> str:
        name, _, number = match[1].partition(":")
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
        found = [
            read_run(path.parent)
            for seed in range(SEEDS if row.seeded else 1)
            for path in (runs / f"{slug(name)}-{seed}").glob("*/result.json")
        ]
        if row.shown and found:
            out.append(Method(name, tuple(found)))
    return out


def write(runs: Path, data: str, rows: Mapping[str, Row]) -> None:
    """The page of a set, and its figures."""
    methods = read_methods(runs / data, rows)
    there = {method.label for method in methods}
    asked = [
        (name, other)
        for name, row in rows.items()
        for other in row.against
        if {name, other} <= there
    ]
    settings = ComparisonSettings(METRIC, methods[0].label, MARGIN, data, 0.95, None)
    statistics = PairedStatistics(methods, settings)
    statistics.contrasts = max(len(asked), 1)
    cold = methods[0].runs[0].cases["cold"].to_numpy().astype(np.bool_)
    content = {
        "cases": len(cold),
        "cold": int(cold.sum()),
        "rows": {method.label: describe_method(method) for method in methods},
        "contrasts": compute_contrasts(statistics, asked, cold),
    }
    PAGES.mkdir(exist_ok=True)
    (PAGES / f"{data}.json").write_text(json.dumps(content, indent=1) + "\n")
    (PAGES / f"{data}.md").write_text("\n".join([f"# {data}", "", *render(content)]) + "\n")


def describe_method(method: Method) -> dict[str, object]:
    """Metrics over seeds as mean and deviation, and what a run costs, with what it builds on."""
    names = [f"{part}{name}" for part in ("", "warm/", "cold/") for name in ("hr@10", METRIC)]
    tests = [run.result["test"] for run in method.runs]
    figures = {
        name: [
            float(np.mean([test[name] for test in tests])),
            float(np.std([test[name] for test in tests], ddof=1)) if len(tests) > 1 else None,
        ]
        for name in names
    }
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


def render(content: dict[str, Any]) -> Iterator[str]:
    """The lines of a page.

    Args:
        content: What `write` keeps as JSON.
    """
    yield (
        f"Test, in percent, whole catalog: {content['cases']:,} cases, {content['cold']:,} of them "
        "cold. Mean ± standard deviation over seeds."
    )
    yield ""
    heads = ["method", "seeds", "HR@10", "nDCG@10", "warm", "cold", "method, CPU s"]
    heads.append("with all it builds on")
    yield f"| {' | '.join(heads)} |"
    yield f"| ---{' | ---:' * (len(heads) - 1)} |"
    for name, row in content["rows"].items():
        test, cost = row["test"], row["cost"]
        shown = [test["hr@10"], test[METRIC], test[f"warm/{METRIC}"], test[f"cold/{METRIC}"]]
        cells = [_format_spread(*figure) for figure in shown]
        cells += [_format_cost(cost, "method_cpu_seconds"), _format_cost(cost, BUILT)]
        yield f"| {name} | {len(row['seeds'])} | {' | '.join(cells)} |"
    yield ""
    yield (
        f"Differences of nDCG@10 in percent points, as planned; p after Holm over the "
        f"{len(content['contrasts'])} of this set."
    )
    yield ""
    yield "| method | against | difference (95 %) | p | can be shown | warm | cold |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for each in content["contrasts"]:
        interval = f"{100 * each['low']:+.2f} to {100 * each['high']:+.2f}"
        parts = [100 * each[part] if each[part] is not None else None for part in ("warm", "cold")]
        yield (
            f"| {each['row']} | {each['against']} | {100 * each['difference']:+.2f} ({interval}) | "
            f"{each['p']:.3f} | {100 * each['smallest']:.2f} | "
            f"{' | '.join('-' if part is None else f'{part:+.2f}' for part in parts)} |"
        )


def _format_spread(mean: float, deviation: float | None) -> str:
    if mean != mean:
        return "-"
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _format_cost(cost: Mapping[str, float | None], key: str) -> str:
    value = cost.get(key)
    return "-" if value is None else format_plain(value)


def main(argv: list[str]) -> int:
    """Runs what is missing and writes the pages."""
    if len(argv) < 2 or not Path(argv[0]).is_dir():
        print(__doc__)
        return 2
    root, runs, asked = Path(argv[0]).resolve(), Path(argv[1]).resolve(), argv[2:]
    unknown = [name for name in asked if name not in OWN]
    if unknown:
        print(f"{unknown[0]} is no set; there are {', '.join(OWN)}.")
        return 2
    rows = make_rows(json.loads(RATES.read_text())["chosen"]["two towers"])
    for data in asked or OWN:
        measure(root, runs, data, rows)
        write(runs, data, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
