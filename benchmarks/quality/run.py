"""Quality on real data: every row is one `recsys.fit`, recorded with command, seed and seconds.

Usage: python benchmarks/quality/run.py DATA [ROW ...]

DATA holds `ml-100k` (.inter, .item, .user) and `amazon-instruments` (items.tsv.gz, users.tsv.gz).
Rows that `results.json` already has are kept; delete the file to measure all again. A row whose
name is given is measured alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STORE = HERE / "results.json"
CROSS = [
    "data.train_users=2000",
    "evaluation.protocol=candidates",
    "evaluation.candidates=20",
    "evaluation.max_cases=500",
]
SETS = {
    "ml-100k": ["data.source=movielens"],
    "amazon-instruments": ["data.source=sequences"],
}
ROWS = {
    "popularity": (["experiment=popularity"], [0]),
    "tfidf": (["experiment=tfidf"], [0]),
    "frozen": (["experiment=frozen_two_tower"], [0, 1, 2]),
    "LoRA, last 2": (["experiment=lora_two_tower"], [0, 1, 2]),
    "adapter, last 2": (["experiment=adapter_two_tower"], [0, 1, 2]),
    "lists: tfidf": (["experiment=tfidf", *CROSS], [0]),
    "lists: LoRA two towers": (["experiment=lora_two_tower", *CROSS], [0]),
    "lists: LoRA cross-encoder": (["experiment=lora_cross_encoder", *CROSS], [0]),
}
SHOWN = ("hr@10", "ndcg@10", "mrr", "warm/ndcg@10", "cold/ndcg@10")


def measure(data: str, name: str, seed: int, root: Path) -> dict[str, object]:
    """One run as a command of its own."""
    words, _ = ROWS[name]
    kept = [w for w in words if not w.startswith("data.train") or "experiment=tfidf" not in words]
    command = [*kept, *SETS[data], f"seed={seed}"]
    with tempfile.TemporaryDirectory() as output:
        where = [f"data.source.path={root / data}", f"output={output}", "tracking.wandb=off"]
        subprocess.run(
            [sys.executable, "-m", "recsys.fit", *command, *where],
            check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        (path,) = Path(output).glob("*/result.json")
        result = json.loads(path.read_text())
    return {
        "command": "python -m recsys.fit " + " ".join(command),
        "seed": seed,
        "test": {k: result["test"][k] for k in (*SHOWN, "cases", "cold/cases")},
        "zero_shot": {k: result["floors"].get("zero-shot", {}).get(k) for k in SHOWN},
        "validation": result["validation"],
        "cost": result["cost"],
        "versions": result["versions"],
        "fingerprint": result["data"]["fingerprint"],
    }


def table(results: dict[str, list[dict[str, object]]], data: str) -> list[str]:
    """Markdown rows: mean and, where there are several seeds, standard deviation, in percent."""
    out = [f"\n## {data}\n", "| | " + " | ".join(SHOWN) + " | seconds | seeds |"]
    out.append("|---" * (len(SHOWN) + 3) + "|")
    for name in ROWS:
        runs = results.get(f"{data}: {name}", [])
        if not runs:
            continue
        if name in ("frozen", "lists: LoRA two towers", "lists: LoRA cross-encoder"):
            label = name.replace("LoRA", "zero-shot") if name.startswith("lists") else "zero-shot"
            out.append(_row(label, [runs[0]["zero_shot"]], [], 1))
        out.append(
            _row(name, [r["test"] for r in runs], [r["cost"]["seconds"] for r in runs], len(runs))
        )
    return out


def _row(name: str, metrics: list[dict[str, float]], seconds: list[float], seeds: int) -> str:
    cells = []
    for metric in SHOWN:
        values = [100 * m[metric] for m in metrics]
        cell = f"{statistics.mean(values):.2f}"
        cells.append(cell + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""))
    time = f"{statistics.mean(seconds):.0f}" if seconds else "-"
    return f"| {name} | " + " | ".join(cells) + f" | {time} | {seeds} |"


def main(argv: list[str]) -> int:
    """Measures what is missing, then writes the table."""
    if not argv:
        print(__doc__)
        return 2
    root, asked = Path(argv[0]).resolve(), argv[1:] or list(ROWS)
    results = json.loads(STORE.read_text()) if STORE.is_file() else {}
    for name in asked:
        for data in SETS:
            if name.startswith("lists") and data == "ml-100k":
                continue
            done = results.setdefault(f"{data}: {name}", [])
            for seed in ROWS[name][1][len(done) :]:
                done.append(measure(data, name, seed, root))
                STORE.write_text(json.dumps(results, indent=1) + "\n")
    lines = (HERE / "head.md").read_text().splitlines()
    for data in SETS:
        lines += table(results, data)
    (HERE / "README.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
