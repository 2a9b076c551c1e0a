"""Quality on real data: every row is one `recsys.fit`, recorded with command, seed and seconds.

Usage: python benchmarks/quality/run.py DATA [ROW ...]

DATA holds `ml-100k` (.inter, .item, .user) and `amazon-instruments` (items.tsv.gz, users.tsv.gz).
Runs that `runs/` already has are kept; delete a file to measure it again. With row numbers, only
those rows are measured. Without DATA the page is written from what is there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recsys.runs.result_file import read_result

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs"
FEW = ["data.train_users=2000"]
SETS = {"ml-100k": "movielens", "amazon-instruments": "sequences"}
ML, AMAZON = SETS
ROWS: list[tuple[str, str, list[str], int]] = [
    (ML, "popularity", ["experiment=popularity"], 1),
    (ML, "tfidf", ["experiment=tfidf"], 1),
    (ML, "frozen", ["experiment=frozen_two_tower"], 3),
    (ML, "LoRA, last 2 layers", ["experiment=lora_two_tower"], 3),
    (ML, "adapter, last 2 layers", ["experiment=adapter_two_tower"], 3),
    (AMAZON, "popularity", ["experiment=popularity"], 1),
    (AMAZON, "tfidf", ["experiment=tfidf"], 1),
    (AMAZON, "frozen", ["experiment=frozen_two_tower", "trainer.epochs=10"], 1),
    (AMAZON, "frozen, 2,000 users", ["experiment=frozen_two_tower", *FEW], 3),
    (AMAZON, "LoRA, last 2 layers, 2,000 users", ["experiment=lora_two_tower", *FEW], 3),
]
BEFORE = tuple(row for row in range(5, len(ROWS)) if ROWS[row][1] not in ("popularity", "tfidf"))
"""Rows trained before 0.2, which are marked until they are measured again."""
SHOWN = ("hr@10", "ndcg@10", "mrr", "warm/ndcg@10", "cold/ndcg@10")


def place(row: int, seed: int) -> Path:
    """The file of a run."""
    data, name, *_ = ROWS[row]
    words = "".join(c if c.isalnum() else " " for c in f"{data} {name} {seed}").split()
    return RUNS / ("-".join(words).lower() + ".json")


def measure(row: int, seed: int, root: Path) -> None:
    """One run as a command of its own."""
    data, _, words, _ = ROWS[row]
    command = [*words, f"data.source={SETS[data]}", f"seed={seed}"]
    with tempfile.TemporaryDirectory() as output:
        where = [f"data.source.path={root / data}", f"output={output}", "tracking.wandb=off"]
        subprocess.run(
            [sys.executable, "-m", "recsys.fit", *command, *where],
            check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        (path,) = Path(output).glob("*/result.json")
        result = read_result(path.parent)
    wanted = (*SHOWN, "cases", "cold/cases")
    kept = {
        "command": "python -m recsys.fit " + " ".join(command),
        "seed": seed,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "test": {k: result["test"][k] for k in wanted},
        "zero_shot": {k: v[k] for v in [result["floors"].get("zero-shot")] if v for k in wanted},
        **{k: result[k] for k in ("validation", "protocol", "cost", "data", "versions")},
    }
    RUNS.mkdir(exist_ok=True)
    place(row, seed).write_text(json.dumps(kept, indent=1) + "\n")


def page() -> list[str]:
    """The tables, in Markdown."""
    out = (HERE / "head.md").read_text().splitlines()
    for data in SETS:
        out += ["", f"## {data}", "", "| | " + " | ".join(SHOWN) + " | CPU seconds | seeds |"]
        out.append("|---" * (len(SHOWN) + 3) + "|")
        shown_start: set[str] = set()
        for row, (owner, name, _, seeds) in enumerate(ROWS):
            files = [place(row, seed) for seed in range(seeds) if place(row, seed).is_file()]
            if owner != data or not files:
                continue
            runs: list[dict[str, Any]] = [json.loads(f.read_text()) for f in files]
            start = name.split(",")[0].replace("LoRA", "zero-shot").replace("frozen", "zero-shot")
            if runs[0]["zero_shot"] and "adapter" not in start and start not in shown_start:
                shown_start.add(start)
                out.append(line(start, [runs[0]["zero_shot"]], [], 1))
            seconds = [r["cost"]["cpu_seconds"] for r in runs]
            marked = f"{name} *" if row in BEFORE else name
            out.append(line(marked, [r["test"] for r in runs], seconds, len(runs)))
    return out


def line(name: str, metrics: list[dict[str, float]], seconds: list[float], seeds: int) -> str:
    """One row: mean and, over several seeds, standard deviation, in percent."""
    cells = []
    for metric in SHOWN:
        values = [100 * m[metric] for m in metrics]
        cell = f"{statistics.mean(values):.2f}"
        cells.append(cell + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""))
    time = f"{statistics.mean(seconds):.0f}" if seconds else "-"
    return f"| {name} | " + " | ".join(cells) + f" | {time} | {seeds} |"


def main(argv: list[str]) -> int:
    """Measures what is missing, then writes the page."""
    if argv and not Path(argv[0]).is_dir():
        print(__doc__)
        return 2
    if argv:
        for row in [int(word) for word in argv[1:]] or range(len(ROWS)):
            for seed in range(ROWS[row][3]):
                if not place(row, seed).is_file():
                    measure(row, seed, Path(argv[0]).resolve())
    (HERE / "README.md").write_text("\n".join(page()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
