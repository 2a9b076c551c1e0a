"""Measures how faithful explanations are: `python benchmarks/explain/run.py`, a few minutes.

Trains four runs on ml-100k, explains the lists of some of its users, and writes results.json and
README.md beside this file. What was trained is kept under the folder of `--work`, and used again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.fit.__main__ import main as fit
from recsys.trained.explanations.attribution import QueryScorer, attribute_scores
from recsys.trained.explanations.faithfulness import (
    compute_kept_share,
    compute_replaced_gain,
    compute_replaced_share,
)
from recsys.trained.explanations.parts import Method
from recsys.trained.queries import Query
from recsys.trained.run import TrainedRun, load

HERE = Path(__file__).parent
RUNS = {
    "item kNN": ["experiment=item_knn"],
    "EASE": ["experiment=ease"],
    "two towers, frozen MiniLM": ["experiment=frozen_two_tower", "trainer.max_steps=100"],
    "SASRec": ["experiment=sasrec", "trainer.max_steps=300"],
}
OWN, OUT, RANDOM = "own", "leave one out", "random"
KS = (1, 2, 3, 4, 5)
SIZE = 3  # items of a history that make an explanation
DRAWS = 2000
Figures = dict[tuple[str, int, str], list[float]]


class Lists:
    """Lists of one query, with and without parts of its history."""

    def __init__(self, run: TrainedRun, user: str) -> None:
        asked = run.suggester.prepare(Query(user=user), None, "now", {})
        every = torch.arange(len(asked.recommender.parts.texts))
        self.asked, self.hidden = asked, asked.seen
        self.scorer = QueryScorer(asked.recommender, asked.batch, every, None)
        self.history = list(range(len(asked.batch.plan.items)))
        self.known: dict[frozenset[int], list[int]] = {}

    def rank(self, without: Sequence[int] = ()) -> list[int]:
        """The five best items; nothing that the user has had, removed or not."""
        key = frozenset(without)
        if key not in self.known:
            places = torch.tensor(sorted(key), dtype=torch.long)
            scores = self.scorer.score(places if len(key) else None).clone()
            scores[self.hidden] = -torch.inf
            # Equal scores, as without any history, go by catalog row.
            self.known[key] = scores.sort(descending=True, stable=True).indices[: max(KS)].tolist()
        return self.known[key]

    def attribute(self, method: Method | None) -> tuple[torch.Tensor, torch.Tensor | None, str]:
        """(5, U) what each item of the history adds to the scores of the list."""
        rows = torch.tensor(self.rank())
        scorer = QueryScorer(self.asked.recommender, self.asked.batch, rows, None)
        made = attribute_scores(scorer, method)
        return made.history, made.compute_errors(), made.method


def measure(lists: Lists, values: list[float], k: int) -> dict[str, float]:
    """The measures of one list, of whose history the largest value speaks most for it."""
    before = lists.rank()[:k]
    order = sorted(lists.history, key=lambda place: -values[place])
    after = lists.rank(order[:SIZE])[:k]

    def rank(removed: Sequence[int]) -> list[int]:
        return lists.rank(removed)[:k]

    return {
        "PN-S": compute_replaced_share(before, after),
        "PN-R": compute_replaced_gain(before, after),
        "POS-P": compute_kept_share(before, order, rank),
        "NEG-P": compute_kept_share(before, order[::-1], rank),
    }


def measure_run(run: TrainedRun, users: list[str]) -> tuple[Figures, float, str]:
    """Figures by (measure, k, method), one a user, and the largest error of a sum."""
    figures, worst, used = defaultdict(list), 0.0, ""
    rng = random.Random(0)
    for user in users:
        lists = Lists(run, user)
        own, errors, used = lists.attribute(None)
        worst = max(worst, float(errors.max()))
        out = lists.attribute("leave_one_out")[0]
        drawn = torch.tensor([rng.random() for _ in lists.history])
        for k in KS:
            ways = {OWN: own[:k].sum(0), OUT: out[:k].sum(0), RANDOM: drawn}
            for way, values in ways.items():
                for name, value in measure(lists, values.tolist(), k).items():
                    figures[name, k, way].append(value)
    return figures, worst, used


def bootstrap(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the 95% interval of a mean over users."""
    array = np.asarray(values)
    draws = np.random.default_rng(0).integers(0, len(array), (DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(1), [0.025, 0.975])
    return float(array.mean()), float(low), float(high)


def main() -> None:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/ml-100k")
    parser.add_argument("--work", default="runs/explain")
    parser.add_argument("--users", type=int, default=40)
    args = parser.parse_args()
    rows = []
    for name, words in RUNS.items():
        output = Path(args.work) / words[0].partition("=")[2]
        if not list(output.glob("*/result.json")):
            source = ["data.source=movielens", f"data.source.path={args.data}"]
            if fit([*words, *source, "tracking.wandb=off", f"output={output}"]):
                raise SystemExit(f"{name} was not trained")
        run = load("last", output)
        tables = run.assemble().tables
        users = tables.users["user"].cast(str).to_list()
        users = random.Random(1).sample(users, args.users)
        start = time.perf_counter()
        figures, worst, method = measure_run(run, users)
        seconds = time.perf_counter() - start
        for (measured, k, way), values in figures.items():
            row = {"model": name, "measure": measured, "k": k, "by": way}
            mean, low, high = bootstrap(values)
            row |= {"mean": mean, "low": low, "high": high}
            for other in (RANDOM, OUT):
                if way == OWN:
                    against = np.subtract(values, figures[measured, k, other])
                    row[f"less {other}"] = bootstrap(against)
            rows.append(row)
        rows.append({"model": name, "method": method, "worst error": worst, "seconds": seconds})
    settings = {"users": args.users, "size": SIZE, "draws": DRAWS}
    (HERE / "results.json").write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")
    write_page(settings, rows)


def write_page(settings: dict[str, int], rows: list[dict[str, Any]]) -> None:
    """README.md: the intro, what sums to what, and a table a measure."""
    lines = [(HERE / "head.md").read_text().rstrip().format(**settings), ""]
    lines += ["| model | method | largest error of the sum |", "|---|---|---|"]
    for row in rows:
        if "method" in row:
            error = f"{100 * row['worst error']:.2f}%"
            lines.append(f"| {row['model']} | {row['method']} | {error} |")
    for measured in ("PN-S", "PN-R", "POS-P", "NEG-P"):
        lines += ["", f"## {measured}", "", "| model | by | " + " | ".join(f"k={k}" for k in KS)]
        lines[-1] += " | own less this, k=5 |"
        lines.append("|---|---|" + "---|" * (len(KS) + 1))
        for name in RUNS:
            cells = {
                (r["by"], r["k"]): r
                for r in rows
                if r["model"] == name and r.get("measure") == measured
            }
            for way in (OWN, OUT, RANDOM):
                shown = [
                    f"{c['mean']:.2f} [{c['low']:.2f}, {c['high']:.2f}]"
                    for c in (cells[way, k] for k in KS)
                ]
                last = ""
                if way != OWN:
                    last = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*cells[OWN, 5][f"less {way}"])
                lines.append(f"| {name} | {way} | {' | '.join(shown)} | {last} |")
    (HERE / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
