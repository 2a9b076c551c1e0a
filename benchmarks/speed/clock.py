"""Quality at equal wall-clock: nDCG@10 against the seconds trained, one line a method."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Part, Timing, row

from recsys.runs.result_file import read_result

BUDGET = 300.0
"""Seconds of training that every method may use; validations are not counted."""

COMMON = [
    "data.source=sequences",
    "data.max_items=4000",
    "data.train_users=1000",
    "evaluation.max_cases=2000",
    "tracking.wandb=off",
]
"""The same training users, validation and test cases for all."""

METHODS: dict[str, tuple[list[str], int]] = {
    "full": (["experiment=full_two_tower"], 3),
    "LoRA, all layers": (["experiment=lora_two_tower", "tuning.layers=all"], 3),
    "LoRA, last 2 layers, kept prefix": (["experiment=lora_two_tower"], 9),
    "adapter, last 2 layers, kept prefix": (["experiment=adapter_two_tower"], 14),
    "frozen": (["experiment=frozen_two_tower", "trainer.patience=null"], 40),
    "LoRA, all layers, item table": (
        ["experiment=lora_two_tower", "tuning.layers=all", "trainer.encoder_updates=half_epoch"],
        4,
    ),
}
"""Words of the command and the epochs that fill the budget on a core or two; the schedule of the
learning rate spans them."""


@dataclass(frozen=True)
class Curve:
    """What a run showed.

    Attributes:
        seconds: Trained until each validation; the first is before the first step.
        value: nDCG@10 of the validation in percent.
        test: nDCG@10 of the test in percent, with the parameters of the best validation.
        cpu: CPU seconds of the whole run.
        kept: CPU seconds that encoding took whose result is kept between runs, whichever run did.
    """

    seconds: list[float]
    value: list[float]
    test: float
    cpu: float
    kept: float


def clock(data: Path, runs: int) -> Part:
    """One run a method; `runs` does not apply: a curve is no timing.

    Args:
        data: Folder that holds `amazon-instruments`.
        runs: Not used.
    """
    curves = {name: curve(data, words, epochs) for name, (words, epochs) in METHODS.items()}
    plot(curves, Path(__file__).parent / "plots" / "clock.png")
    what = "Best validation within the budget"
    rows = []
    for name, found in curves.items():
        inside = [v for s, v in zip(found.seconds, found.value, strict=True) if s <= BUDGET]
        best = max(inside)
        at = found.seconds[found.value.index(best)]
        extra = {
            "best val nDCG@10 in the budget": best,
            "val at the start": found.value[0],
            "test nDCG@10 of the whole run": found.test,
            "kept between runs, CPU s": found.kept,
        }
        timing = Timing([at], [found.cpu])
        rows.append(row(what, name, timing, texts=0, tokens=0, extra=extra))
    notes = [
        "1,000 training users and the 4,000 most frequent items of amazon-instruments, 2,000 "
        "validation and test cases, "
        f"{BUDGET:.0f} seconds of training, one seed. The seconds are those until the best "
        "validation inside the budget, without the encoding that is kept between runs; the CPU "
        "seconds are of the whole run with its validations and floors.",
        "![nDCG@10 against seconds of training](plots/clock.png)",
    ]
    return Part("Quality at equal wall-clock", rows, notes)


def curve(data: Path, words: list[str], epochs: int) -> Curve:
    """Trains as a command of its own and reads what it left."""
    with tempfile.TemporaryDirectory() as output:
        where = [f"data.source.path={data / 'amazon-instruments'}", f"output={output}"]
        command = [sys.executable, "-m", "recsys.fit", *words, *COMMON, *where]
        subprocess.run([*command, f"trainer.epochs={epochs}"], check=True)
        (folder,) = Path(output).iterdir()
        with (folder / "log" / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["val/ndcg@10"]]
        result: dict[str, Any] = read_result(folder)
    return Curve(
        [float(r["seconds"]) for r in rows],
        [100 * float(r["val/ndcg@10"]) for r in rows],
        100 * result["test"]["ndcg@10"],
        result["cost"]["cpu_seconds"],
        result["cost"]["kept_cpu_seconds"],
    )


def plot(curves: dict[str, Curve], path: Path) -> None:
    """A line a method, up to the end of the budget."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, found in curves.items():
        inside = [i for i, s in enumerate(found.seconds) if s <= BUDGET]
        seconds = [max(found.seconds[i], 0.5) for i in inside]
        axes.plot(seconds, [found.value[i] for i in inside], marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training (the start stands at 0.5)")
    axes.set_ylabel("validation nDCG@10, percent, all items")
    axes.set_title("amazon-instruments, 4,000 items, 1,000 training users, one seed", fontsize=10)
    axes.list_combinations(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
