"""Are decoders worth their cost? Yes or no from a small language model beside encoders and counts.

Usage: python benchmarks/quality/decoders.py DATA RUNS [TABLE ...]

DATA holds the folders `ml-100k`, `amazon-office` and `smollm2-135m` (see `decoders-plan.md`, which
was written before the first run); RUNS is a folder for the runs, outside of the project. The tables
are those of `decoder_rows.py`. A cell that RUNS already has is kept, one that was stopped goes on;
several commands may work side by side. Each table ends as `decoders/TABLE.md` and
`decoders/TABLE.json`; `decoders.md` links them, below what `decoders-head.md` says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import like_rows
import numpy as np
import polars as pl
from answers import ANSWERS, ROWS
from cells import Busy, alone, fit, slug
from decoder_pages import PAGES, render, write_summary
from decoder_rows import DECODER, FLOORS, PROPOSED, TABLES, Table
from hybrid_rows import METRIC, SEEDS, Rows
from hybrids import MARGIN, Cell, compute_contrasts, fill, list_cells
from pooled_auc import Floats, LabelledRows

from recsys.compare.finished_runs import FinishedRun
from recsys.compare.measures.cost import compute_costs
from recsys.compare.methods import Method
from recsys.compare.outcome import ComparisonSettings
from recsys.compare.paired import PairedStatistics
from recsys.config.compose import make_node, read_config
from recsys.runs.result_file import ZERO_SHOT, read_result
from recsys.runtime.files import CONFIG

HERE = Path(__file__).resolve().parent
SHOWN = ("hr@1", "hr@5", "hr@10", METRIC, "mrr")


def measure(data: Path, runs: Path, table: Table, rows: Rows) -> None:
    """Every missing run of a table and its answers; waits for those measured elsewhere."""
    left = list(list_cells(rows))
    while left:
        busy = []
        for cell in left:
            try:
                _run_cell(data, runs, table, rows, cell)
            except (Busy, FileNotFoundError):
                busy.append(cell)
        left = busy
        if left:
            time.sleep(10)


def _run_cell(data: Path, runs: Path, table: Table, rows: Rows, cell: Cell) -> None:
    """A run, and then its test in a process of its own."""
    folder = runs / f"{slug(cell.name)}-{cell.seed}"
    words = [fill(word, runs, rows, cell.seed) for word in rows[cell.name].words]
    run = fit(data, folder, table.data, [*words, *table.own, *table.common], cell.seed)
    if run is None or _is_answered(run, table.cases):
        return
    with alone(folder), (folder / "answers.log").open("w") as log:
        cases = "all" if table.cases is None else str(table.cases)
        command = [sys.executable, str(HERE / "answers.py"), str(run), cases]
        subprocess.run(command, stdout=log, stderr=log, check=True)


def _is_answered(run: Path, cases: int | None) -> bool:
    """Whether as many cases were asked as the table has now; a sample may have grown since."""
    path = run / ANSWERS
    return path.is_file() and (cases is None or json.loads(path.read_text())["asked"] == cases)


def read_runs(runs: Path, rows: Rows) -> dict[str, list[Path]]:
    """Folders of what was run and tested of each row, by seed."""
    out = {}
    for name, row in rows.items():
        seeds = range(SEEDS if row.seeded else 1)
        found = [p for s in seeds for p in (runs / f"{slug(name)}-{s}").glob(f"*/{ANSWERS}")]
        if found:
            out[name] = [path.parent for path in found]
    return out


def open_run(folder: Path) -> FinishedRun:
    """A run with the figures of its answers in place of those of a test."""
    said, result = json.loads((folder / ANSWERS).read_text()), dict(read_result(folder))
    cases = pl.read_parquet(folder / ROWS)
    node = make_node(read_config(folder / CONFIG))
    floors = {ZERO_SHOT: {}} if not result["validation"]["steps"] else {}
    return FinishedRun(folder, node, {**result, "test": said["test"], "floors": floors}, cases)


def describe_cost(folders: list[Path]) -> dict[str, float | None]:
    """Means over the runs of a row: training, and one answer."""
    runs = [open_run(folder) for folder in folders]
    said = [json.loads((folder / ANSWERS).read_text()) for folder in folders]

    def average(values: list[Any]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    costs = compute_costs(Method("row", tuple(runs)))
    peaks = [run.result["cost"]["anonymous_peak_mb_sampled"] or 0.0 for run in runs]
    peaks = [max(peak, one["peak_mb"]) for peak, one in zip(peaks, said, strict=True)]
    return {
        "training_tokens": average([run.result["cost"]["tokens"] for run in runs]),
        "training_cpu_seconds": costs["method_cpu_seconds"],
        "built_cpu_seconds": costs["method_kept_cpu_seconds"],
        "tokens": average([one["tokens"] for one in said]),
        "cpu_seconds": average([one["cpu_seconds"] / one["cases"] for one in said]),
        "milliseconds": average([one["milliseconds"] for one in said]),
        "peak_mb": average(peaks),
    }


def describe_likes(data: Path, table: Table, rows: Rows, runs: Path) -> dict[str, Any]:
    """AUC of each row and floor, with intervals of users, and the planned differences."""
    floors = like_rows.score_floors(data / table.data)
    liked, place = floors["liked"].to_numpy(), floors["rater"].rank("dense").to_numpy()
    test = LabelledRows(liked, place.astype(np.int64) - 1)
    scores: dict[str, list[Floats]] = {key: [floors[key].to_numpy()] for key in FLOORS}
    shown = {FLOORS[key]: {"auc": _list(test.measure(scores[key])), "seeds": 0} for key in FLOORS}
    for name, folders in read_runs(runs, rows).items():
        scores[name] = [_read_scores(folder, floors["user"]) for folder in folders]
        shown[name] = {
            "auc": _list(test.measure(scores[name])),
            "seeds": len(folders),
            "each": [_list(test.measure([seed])) for seed in scores[name]],
            "cost": describe_cost(folders),
        }
    asked = [(n, o) for n, row in rows.items() for o in row.against if n in scores and o in scores]
    contrasts = [
        {"row": n, "against": FLOORS.get(o, o), **_list(test.compare(scores[n], scores[o]))}
        for n, o in asked
    ]
    return {
        "rows_tested": len(liked),
        "users": test.users,
        "liked": float(liked.mean()),
        "rows": shown,
        "contrasts": contrasts,
    }


def _list(figures: Mapping[str, Any]) -> dict[str, list[float]]:
    """Value, low and high by name."""
    return {name: list(interval) for name, interval in figures.items()}


def _read_scores(folder: Path, rows: pl.Series) -> Floats:
    """(N,) the scores of a run in the order of the test rows."""
    said = pl.read_parquet(folder / ROWS)
    joined = rows.to_frame().join(said, "user", "left", maintain_order="left")
    scores = joined["score"].to_numpy().astype(np.float64)
    if np.isnan(scores).any():
        raise SystemExit(f"{folder / ROWS} lacks test rows: remove it, and {ANSWERS} beside it.")
    return scores


def describe_ranking(rows: Rows, runs: Path) -> dict[str, Any]:
    """Metrics and costs of each row, the lists' recall, and the planned differences."""
    folders = read_runs(runs, rows)
    methods = [Method(name, tuple(map(open_run, found))) for name, found in folders.items()]
    settings = ComparisonSettings(METRIC, methods[0].label, MARGIN, "decoders", 0.95, None)
    statistics = PairedStatistics(methods, settings)
    there = set(folders)
    asked = [(n, o) for n, row in rows.items() for o in row.against if {n, o} <= there]
    statistics.contrasts = max(len(asked), 1)
    cases = methods[0].runs[0].cases
    cold = cases["cold"].to_numpy().astype(np.bool_)
    shown = {}
    for method in methods:
        tests = [run.result["test"] for run in method.runs]
        figures = {
            name: [
                float(np.mean([test[name] for test in tests])),
                float(np.std([test[name] for test in tests], ddof=1)) if len(tests) > 1 else None,
            ]
            for name in SHOWN
        }
        cost = describe_cost(folders[method.label])
        shown[method.label] = {"seeds": len(tests), "test": figures, "cost": cost}
    recall = float((cases["rank"] <= PROPOSED).mean())  # type: ignore[arg-type]
    return {
        "cases": len(cases),
        "cold": int(cold.sum()),
        "proposed": PROPOSED,
        "recall": recall,
        "rows": shown,
        "contrasts": compute_contrasts(statistics, asked, cold) if asked else [],
    }


def write(data: Path, runs: Path, name: str, table: Table, rows: Rows) -> None:
    """The page of a table, and its figures."""
    PAGES.mkdir(exist_ok=True)
    if table.labelled:
        content = describe_likes(data, table, rows, runs)
    else:
        content = describe_ranking(rows, runs)
    content = {"labelled": table.labelled, **content}
    (PAGES / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (PAGES / f"{name}.md").write_text("\n".join([f"# {name}", "", *render(content)]) + "\n")


def main(argv: list[str]) -> int:
    """Runs what is missing and writes the pages."""
    if len(argv) < 2 or not (Path(argv[0]) / DECODER / "config.json").is_file():
        print(__doc__)
        return 2
    root, runs, asked = Path(argv[0]).resolve(), Path(argv[1]).resolve(), argv[2:]
    unknown = [name for name in asked if name not in TABLES]
    if unknown:
        print(f"{unknown[0]} is no table; there are {', '.join(TABLES)}.")
        return 2
    for name in asked or TABLES:
        table, data = TABLES[name], root
        if table.labelled:
            data = runs / "tables"
            like_rows.write(data, root)
        rows = table.make(root / DECODER)
        measure(data, runs / name, table, rows)
        write(data, runs / name, name, table, rows)
        write_summary()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
