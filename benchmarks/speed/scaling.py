"""How time and memory grow: batch, history, catalog, users x items, processes. A plot each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from measure import Part, Timing, alternate, memory, once, row
from sides import Ours
from steps import FROZEN, LORA, TUNINGS
from torch import Tensor

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.evaluation.evaluator import Evaluator
from recsys.types import Batch, ItemBatch

PLOTS = Path(__file__).resolve().parent / "plots"
BATCHES = (16, 32, 64, 128, 256)
HISTORIES = (5, 10, 20, 50)
CATALOGS = (1250, 2500, 5000, 10_000, 20_000)
ITEMS = (1000, 10_000, 100_000, 1_000_000)
USERS = (256, 1024, 4096, 16_384)
FEW_USERS, SOME_ITEMS = 256, 20_000  # what stays when the other one grows
WIDTH = 384  # of all-MiniLM-L6-v2
SEEN = 20  # items masked for each user
STEPS = 6  # of a run with one or two processes
Series = dict[str, list[tuple[float, float]]]


def scaling(data: Path, runs: int) -> Part:
    """Every measurement, its plot, and what they say together.

    Args:
        data: Folder that holds `ml-100k` and `amazon-instruments`.
        runs: Timed runs; the encoding of the catalog and the processes are run once.
    """
    PLOTS.mkdir(exist_ok=True)
    rows = [
        *steps(data, runs, "batch", BATCHES, "users of a step"),
        *steps(data, runs, "history", HISTORIES, "items of a history, at most"),
        *catalog(data),
        *evaluation(runs),
        *processes(data),
    ]
    notes = [
        "Steps are on ml-100k, whose users have 106 films each: batch 32 where the history grows, "
        "a history of 20 where the batch grows; every position trains. `places` are the places in "
        "histories and targets, each of which a typical loop would encode. A step encodes every "
        "title once, so that encoding grows with the unique titles and ends at 1,682. What grows "
        "on is the in-batch softmax, which compares every position with every target: the frozen "
        "encoder's line shows it alone, and it grows with the square of users x positions.",
        "![step time against batch](plots/batch.png) ![step time against history]"
        "(plots/history.png)",
        "Catalog: real titles of amazon-instruments through the whole encoder, once. The "
        "evaluation is on random vectors of 384 numbers, product and counting included; beyond "
        f"{SOME_ITEMS:,} items nothing is encoded. Its memory is that of a block of scores, not "
        "that of users x items.",
        "![encoding against titles](plots/catalog.png) ![evaluation against users and items]"
        "(plots/evaluation.png) ![memory of an evaluation](plots/memory.png)",
        f"Processes: `python -m recsys.fit` for {STEPS} steps, seconds a step as the run counts "
        "them, everything around a step included; CPU seconds are those of the first process and "
        "of the whole command. Each process encodes the titles of its own users, so that a title "
        "that both need is encoded twice: two processes gain less than two threads where titles "
        "are few.",
        "![one and two processes](plots/processes.png)",
    ]
    return Part("Scaling", rows, notes)


def steps(
    data: Path, runs: int, name: str, sizes: Sequence[int], label: str
) -> list[dict[str, Any]]:
    """A training step for each size of the batch or of the history."""
    key = {"batch": "trainer.batch_size", "history": "data.max_history"}[name]
    out, series = [], Series()
    for tuning in (LORA, FROZEN):
        for size in sizes:
            words = [
                *TUNINGS[tuning],
                "data.source=movielens",
                f"data.source.path={data / 'ml-100k'}",
                "data.max_users=null",
                "data.max_items=null",
                "data.queries=all",
            ]
            ours = Ours(data, [*words, f"{key}={size}"])
            (chosen,) = ours.batches(1)
            batch = ours.batch(chosen)
            call = ours.step(lambda ours=ours, chosen=chosen: ours.batch(chosen))
            call()
            timing = alternate({"step": call}, runs, warm=["step"] if tuning == FROZEN else [])
            lengths = ours.lengths(batch)
            extra = {"places": float((batch.history >= 0).sum() + len(batch.query))}
            made = row(
                f"{tuning}: step against {name}",
                f"{name} {size}",
                timing["step"],
                texts=len(lengths),
                tokens=sum(lengths),
                extra=extra,
            )
            out.append(made)
            series.setdefault(tuning, []).append((size, made["median_s"]))
    plot(name, series, label, "seconds of a step", "A training step, ml-100k")
    return out


def catalog(data: Path) -> list[dict[str, Any]]:
    """Encoding real titles, in one pass that is timed at several sizes."""
    words = ["experiment=frozen_two_tower", "encoder.cache=false", "data.source=sequences"]
    words += [f"data.source.path={data / 'amazon-instruments'}", f"data.max_items={CATALOGS[-1]}"]
    encoding = build.assemble(compose(words)).encoding
    if encoding is None:
        raise RuntimeError("this experiment reads no texts")
    encoder, tokens = encoding.encoder.eval(), encoding.catalog
    lengths = encoder.compute_lengths(tokens.count_tokens(torch.arange(len(tokens))))
    found = []
    with torch.inference_mode():
        encoder(tokens.gather_tokens(torch.arange(64)))
        for at in torch.split(torch.arange(len(tokens)), CATALOGS[0]):
            found.append(once(lambda at=at: encoder(tokens.gather_tokens(at))))
    out, series = [], Series()
    wall, cpu = (list(accumulate(column)) for column in zip(*found, strict=True))
    for size in CATALOGS:
        last = -(-min(size, len(tokens)) // CATALOGS[0]) - 1
        size = min(size, len(tokens))
        timing = Timing([wall[last]], [cpu[last]])
        what = "Encoding the catalog, every layer"
        used = sum(lengths[:size])
        out.append(row(what, f"{size:,} titles", timing, texts=size, tokens=used))
        series.setdefault("every layer", []).append((size, timing.median))
    plot("catalog", series, "titles", "seconds", "Encoding the catalog, amazon-instruments")
    return out


class Vectors:
    """Stands for an architecture: item and user vectors that are there already, and a product."""

    needs_history = False

    def __init__(self, users: int, items: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.users = torch.randn(users, WIDTH, generator=generator)
        self.items = torch.randn(items, WIDTH, generator=generator)

    def get_popularity(self) -> Tensor:
        """Not asked for: `needs_history` is off."""
        raise NotImplementedError

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """Not asked for: the whole catalog is ranked."""
        raise NotImplementedError

    def index_catalog(self) -> Tensor:
        """(I, D) item vectors."""
        return self.items

    def select_directions(self, items: Tensor) -> Tensor:
        """All of them."""
        return items

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, D) vectors of the batch's users."""
        return self.users[batch.users]

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, I) products."""
        return queries @ items.T

    def batches(self, size: int = 256) -> list[Batch]:
        """Cases with a random target and `SEEN` random items to mask."""
        generator = torch.Generator().manual_seed(1)
        out = []
        for users in torch.split(torch.arange(len(self.users)), size):
            count = len(users)
            target = torch.randint(len(self.items), (count,), generator=generator)
            seen = torch.randint(len(self.items), (count * SEEN,), generator=generator)
            plan, place = target.unique(return_inverse=True)
            row_ = torch.arange(count)
            out.append(
                Batch(
                    plan=ItemBatch(plan, ()),
                    users=users,
                    history=place[:, None],
                    query=torch.stack([row_, torch.ones_like(row_)], dim=1),
                    candidates=place[:, None],
                    labels=torch.ones(count, 1),
                    weight=torch.ones(count, 1),
                    case=users,
                    seen=torch.stack([row_.repeat_interleave(SEEN), seen], dim=1),
                )
            )
        return out


def evaluation(runs: int) -> list[dict[str, Any]]:
    """Product, counting and metrics on random vectors."""
    out, seconds, mb = [], Series(), Series()
    grids = {
        "items": [(FEW_USERS, items) for items in ITEMS],
        "users": [(users, SOME_ITEMS) for users in USERS],
    }
    for axis, grid in grids.items():
        for users, items in grid:
            ranker = Vectors(users, items)
            batches = ranker.batches()
            evaluator = Evaluator("catalog", (10,), True, torch.ones(items).long())

            def call(
                evaluator: Evaluator = evaluator,
                ranker: Vectors = ranker,
                batches: list[Batch] = batches,
            ) -> None:
                evaluator.start(ranker)
                for batch in batches:
                    evaluator.step(ranker, batch)
                evaluator.end()

            added = memory(call)  # warms up as well
            timing = alternate({"call": call}, runs, warm=["call"] if users * items < 1e7 else [])
            extra = {"scores/s": users * items / timing["call"].median}
            whole = users * items * 4 / 1e6
            if axis == "items":  # where users grow, memory that was used before is used again
                extra |= {"MB added": added, "MB of all scores": whole}
            what = f"Evaluation against {axis}, random vectors"
            name = f"{users:,} users x {items:,} items"
            out.append(row(what, name, timing["call"], texts=0, tokens=0, extra=extra))
            label = f"{users:,} users" if axis == "items" else f"{items:,} items"
            side = f"{label}, {axis} grow"
            seconds.setdefault(side, []).append((users * items, timing["call"].median))
            if axis == "items":
                mb.setdefault("added at the peak", []).append((items, max(added, 0.1)))
                mb.setdefault("all scores at once would be", []).append((items, whole))
    plot("evaluation", seconds, "users x items", "seconds", "Evaluation, random vectors")
    title = f"Memory of an evaluation, {FEW_USERS} users"
    plot("memory", mb, "items", "MB", title)
    return out


def processes(data: Path) -> list[dict[str, Any]]:
    """Seconds of a step with one and two processes, as the command counts them."""
    out, series = [], Series()
    ways = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2)}
    ways |= {"2 processes, 1 thread each": (2, 1)}
    if (os.cpu_count() or 1) < 2:
        ways = {name: way for name, way in ways.items() if way == (1, 1)}
    for tuning in (LORA, FROZEN):
        for place, (name, (devices, threads)) in enumerate(ways.items()):
            with tempfile.TemporaryDirectory() as folder:
                words = [
                    "experiment=lora_two_tower",
                    *TUNINGS[tuning],
                    "data.source=movielens",
                    f"data.source.path={data / 'ml-100k'}",
                    f"output={folder}",
                    f"trainer.devices={devices}",
                    f"trainer.threads={threads}",
                    "trainer.accelerator=cpu",
                    "trainer.batch_size=64",
                    f"trainer.max_steps={STEPS}",
                    "evaluation.max_cases=64",
                    "tracking.wandb=off",
                ]
                command = [sys.executable, "-m", "recsys.fit", *words]
                env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
                subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
                (path,) = Path(folder).glob("*/result.json")
                cost = json.loads(path.read_text())["cost"]
            timing = Timing([cost["train_seconds"] / STEPS], [cost["cpu_seconds"]])
            extra = {"whole command s": cost["seconds"]}
            what = f"{tuning}: a step of 64 users, by processes"
            out.append(row(what, name, timing, texts=0, tokens=0, extra=extra))
            series.setdefault(tuning, []).append((place, timing.median))
    bars("processes", series, list(ways), "seconds of a step", "One and two processes, ml-100k")
    return out


def plot(name: str, series: Series, x: str, y: str, title: str) -> None:
    """Lines on two logarithmic axes, as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    for label, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({a for points in series.values() for a, _ in points})
    if len(ticks) <= 5:  # the sizes that were measured, not powers of ten
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.6g}"))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.list_combinations(alpha=0.3, which="both")
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(PLOTS / f"{name}.png", dpi=110)


def bars(name: str, series: Series, labels: Sequence[str], y: str, title: str) -> None:
    """A group of bars a method, each with its height written on it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    wide = 0.8 / max(1, len(labels))
    for place, label in enumerate(labels):
        heights = [points[place][1] for points in series.values()]
        middle = [i + (place - (len(labels) - 1) / 2) * wide for i in range(len(heights))]
        drawn = axes.bar(middle, heights, wide, label=label)
        axes.bar_label(drawn, fmt="{:.3g}", fontsize=8)
    axes.set_xticks(range(len(series)), list(series))
    axes.set_yscale("log")
    axes.margins(y=0.25)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(PLOTS / f"{name}.png", dpi=110)
