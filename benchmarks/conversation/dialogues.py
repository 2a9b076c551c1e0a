"""Who finds what a recommender will name next in a dialogue?

    python benchmarks/conversation/dialogues.py DATA RUNS [ROW ...]

DATA holds the folders `redial` and `redial-he`; RUNS is a folder for the runs, outside of the
project. What is compared was written down before the first run: `conversation-plan.md`. The rows
are those of `dialogue_rows.py`, all or those that are named. A run that RUNS already has is kept,
one that was stopped goes on; several commands may work side by side. It ends as `conversation.md`
and `conversation.json`, below what `conversation-head.md` says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from dialogue_rows import Row, make_rows  # also finds benchmarks/quality
from hybrid_rows import Table
from hybrids import compute_contrasts, measure, read_methods
from listed_turns import prepare

from recsys.compare.methods import Method
from recsys.compare.outcome import ComparisonSettings
from recsys.compare.paired import PairedStatistics
from recsys.compare.statistics.contrasts import estimate_mean
from recsys.evaluation.slices import compute_per_case
from recsys.runtime.files import CASES, REPEATED_CASES, write_atomic

HERE = Path(__file__).resolve().parent
METRIC, CUTS, MARGIN = "hr@10", (1, 10, 50), 1.0
CITED = (
    ("GPT-4 (He et al., all turns, 6,281 films)", "4.7", "19.6", "-"),
    ("NBCRS, MiniLM (Xie et al., four times the dialogues)", "1.4", "13.0", "27.2"),
    ("co-mention on iEvaLM's cut", "-", "9.7", "24.8"),
)


class _Table(Table):
    """ReDial: R@1, 10 and 50 of all turns, chosen by R@10."""

    @property
    def common(self) -> list[str]:
        """Words of all runs."""
        cuts = ",".join(map(str, CUTS))
        return [f"evaluation.k=[{cuts}]", f"evaluation.monitor={METRIC}", "evaluation.beyond=false"]


def estimate(method: Method, name: str) -> dict[str, list[float]] | None:
    """R@k of some cases, each with its interval over dialogues, in percent.

    Args:
        method: Its runs.
        name: The file of the cases; None is returned where the runs have none.
    """
    paths = [run.folder / name for run in method.runs]
    if not all(path.is_file() for path in paths):
        return None
    frames = [pl.read_parquet(path).sort("case") for path in paths]
    owners = frames[0]["user"].rank("dense").to_numpy().astype(np.int64)
    out: dict[str, list[float]] = {"cases": [float(frames[0].height)]}
    for k in CUTS:
        values = np.stack([compute_per_case(frame, f"hr@{k}") for frame in frames])
        if len(values) == 1:  # of a method without seeds, as the comparison has it
            values = np.repeat(values, 2, axis=0)
        found = estimate_mean(values, owners)
        # The interval is of a normal mean, and may leave what a share can be.
        low, high = np.clip([found.low, found.high], 0, 1).tolist()
        out[f"R@{k}"] = [100 * each for each in (found.mean, low, high)]
    return out


def describe(methods: list[Method], rows: Mapping[str, Row]) -> dict[str, object]:
    """All figures of the page."""
    whole = [m for m in methods if m.runs[0].config["evaluation"]["protocol"] == "catalog"]
    there = {method.label for method in whole}
    asked = [(n, o) for n, row in rows.items() for o in row.against if {n, o} <= there]
    settings = ComparisonSettings(METRIC, whole[0].label, MARGIN, "conversation", 0.95, None)
    statistics = PairedStatistics(whole, settings)
    statistics.contrasts = max(len(asked), 1)
    cold = whole[0].runs[0].cases["cold"].to_numpy().astype(np.bool_)
    return {
        "rows": {
            method.label: {
                "new": estimate(method, CASES),
                "repeated": estimate(method, REPEATED_CASES),
                "seeds": method.seeds,
            }
            for method in methods
        },
        "contrasts": compute_contrasts(statistics, asked, cold),
    }


def render(content: dict[str, object]) -> list[str]:
    """The page."""
    rows: Mapping[str, Mapping[str, object]] = content["rows"]  # type: ignore[assignment]
    heads = [f"{part} R@{k}" for part in ("new", "repeated") for k in CUTS]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for label, row in rows.items():
        cells = [format_cell(row[part], k) for part in ("new", "repeated") for k in CUTS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, *cells in CITED:
        lines.append(f"| *{label}* | {' | '.join(cells)} | | | |")
    contrasts: list[dict[str, object]] = content["contrasts"]  # type: ignore[assignment]
    if contrasts:
        lines += ["", "| row | against | R@10, new (95 %) | p |", "|---|---|---|---|"]
    for found in contrasts:
        size, low, high = (100 * float(str(found[key])) for key in ("difference", "low", "high"))
        lines.append(
            f"| {found['row']} | {found['against']} | {size:+.2f} ({low:+.2f} to {high:+.2f}) | "
            f"{float(str(found['p'])):.3f} |"
        )
    return lines


def format_cell(figures: object, k: int) -> str:
    """A mean with its interval."""
    if not isinstance(figures, Mapping):
        return "-"
    mean, low, high = figures[f"R@{k}"]
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def select_rows(rows: Mapping[str, Row], asked: list[str]) -> dict[str, Row]:
    """The rows that are named, and those that they build on."""
    wanted = set(asked)
    for name in reversed(rows):  # each stands after those that it builds on
        if name in wanted:
            words = " ".join(rows[name].words)
            wanted |= {other for other in rows if f"{{{other}}}" in words}
    return {name: row for name, row in rows.items() if name in wanted}


def write(runs: Path, rows: Mapping[str, Row]) -> None:
    """The page, and its figures."""
    content = describe(read_methods(runs, rows), rows)
    write_atomic(HERE / "conversation.json", (json.dumps(content, indent=1) + "\n").encode())
    head = (HERE / "conversation-head.md").read_text()
    text = "\n".join([head.rstrip("\n"), "", *render(content)]) + "\n"
    write_atomic(HERE / "conversation.md", text.encode())


def main(argv: list[str]) -> int:
    """Runs what is missing and writes the page."""
    if len(argv) < 2 or not (Path(argv[0]) / "redial-he").is_dir():
        print(__doc__)
        return 2
    root, runs, asked = Path(argv[0]).resolve(), Path(argv[1]).resolve(), argv[2:]
    rows = make_rows()
    unknown = [name for name in asked if name not in rows]
    if unknown:
        print(f"'{unknown[0]}' is no row; there are {', '.join(rows)}.")
        return 2
    listed = prepare(root, runs / "files" / "redial")
    table = _Table("redial", [f"data.source.listed={listed}"], lambda rates: rows)
    chosen = select_rows(rows, asked) if asked else rows
    measure(runs / "files", runs / "rows", table, chosen)
    write(runs / "rows", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
