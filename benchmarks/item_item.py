"""What item-item similarities of a large catalog take: events counted, ranked, texts compared.

    OMP_NUM_THREADS=1 python benchmarks/item_item.py [items=N ...] [vectors=N ...]

`items=1000000` makes a shop of so many items, as many users and ten events of each, and runs
`python -m recsys.fit` on it with whole histories and with a window of 20, 2,000 test cases each:
its own report of CPU seconds and of the peak of anonymous memory, and the same of popularity, which
only reads and splits that data. `vectors=100000` finds the 50 nearest of so many random vectors of
384 numbers, beside as many operations in large products. Without words: both. Tables go to the
standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recsys.layers.vector_neighbours import compute_vector_neighbours
from recsys.runtime.memory import MemoryMonitor, read_anonymous_mb

DEFAULT = ("items=1000000", "vectors=100000")
EACH = 10  # events of a user
WIDTH = 384  # of all-MiniLM-L6-v2
CASES = 2000
SIDES = {
    "popularity: reading and splitting": ["architecture=popularity"],
    "whole histories": ["experiment=item_knn"],
    "window of 20": ["experiment=co_occurrence"],
}


def make_shop(folder: Path, items: int) -> list[str]:
    """As many users as items; the words that read them."""
    rng = np.random.default_rng(0)
    events = items * EACH
    # few items have most of the events; a user stays in a neighbourhood of the catalog
    popular = (items * rng.random(events) ** 3).astype(np.int64)
    near = np.repeat(rng.integers(0, items, items), EACH) + rng.integers(0, 200, events)
    item = np.where(rng.random(events) < 0.5, popular, near % items)
    pl.DataFrame(
        {
            "user": np.repeat(np.arange(items), EACH),
            "item": item,
            "time": np.arange(events) + 1_300_000_000,
        }
    ).write_parquet(folder / "events.parquet")
    pl.DataFrame({"item": np.arange(items)}).with_columns(
        pl.format("Thing {}", "item").alias("title")
    ).write_parquet(folder / "items.parquet")
    return [
        "data.source=tables",
        f"data.source.interactions={folder / 'events.parquet'}",
        f"data.source.items={folder / 'items.parquet'}",
        "data.split=leave_one_out",
        f"evaluation.max_cases={CASES}",
        "evaluation.beyond=false",
        "tracking.wandb=off",
    ]


def measure_fit(words: list[str], folder: Path) -> dict[str, float]:
    """What a run says of its own cost."""
    asked = [sys.executable, "-m", "recsys.fit", *words, f"output={folder}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(asked)}: {done.stderr}")
    (result,) = folder.glob("*/result.json")
    cost: dict[str, float] = json.loads(result.read_text())["cost"]
    return cost


def compare_sizes(items: int) -> None:
    """A line for each way to count the same events."""
    print(f"\n{items:,} items and users, {items * EACH:,} events, {CASES:,} cases ranked\n")
    print("| | CPU seconds | seconds | peak MB, anonymous |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as place:
        shared = make_shop(Path(place), items)
        for number, (name, words) in enumerate(SIDES.items()):
            cost = measure_fit([*words, *shared], Path(place) / f"runs{number}")
            print(
                f"| {name} | {cost['cpu_seconds']:,.0f} | {cost['seconds']:,.0f} "
                f"| {cost['anonymous_peak_mb_sampled']:,.0f} |",
                flush=True,
            )


def compare_vectors(items: int) -> None:
    """Nearest vectors, and the product of matrices that takes as many operations."""
    vectors = torch.randn(items, WIDTH, generator=torch.Generator().manual_seed(0))
    before = read_anonymous_mb() or 0.0
    with MemoryMonitor() as memory:
        began = time.process_time()
        compute_vector_neighbours(vectors, 50)
        spent = time.process_time() - began
    operations = 2 * items**2 * WIDTH
    one, other = vectors[:1024], torch.randn(WIDTH, 8192)
    one @ other
    began, times = time.process_time(), 50
    for _ in range(times):
        one @ other
    peak = times * 2 * 1024 * 8192 * WIDTH / (time.process_time() - began)
    print(f"\n{items:,} vectors of {WIDTH} numbers, 50 neighbours\n")
    print(
        "| CPU seconds | of the product alone | GFLOP/s | more MB at its peak |\n|---|---|---|---|"
    )
    print(
        f"| {spent:,.0f} | {operations / peak:,.0f} | {operations / spent / 1e9:.0f} "
        f"of {peak / 1e9:.0f} | {memory.peak - before:,.0f} |",
        flush=True,
    )


def main(argv: list[str]) -> None:
    """Measures each size."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for word in argv or DEFAULT:
        kind, _, size = word.partition("=")
        if kind not in ("items", "vectors") or not size.isdigit():
            raise SystemExit(f"'{word}' is not of the form items=1000000 or vectors=100000")
        (compare_sizes if kind == "items" else compare_vectors)(int(size))


if __name__ == "__main__":
    main(sys.argv[1:])
