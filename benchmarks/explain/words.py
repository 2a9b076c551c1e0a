"""Measures what the score loses with the words that an explanation names.

`python benchmarks/explain/words.py`, some twenty minutes on one core. Trains two runs on ml-100k,
deletes words of what they read for some users, and writes words.json and words.md beside this file.
What was trained is kept under the folder of `--work`, and used again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run import bootstrap

from recsys.fit.__main__ import main as fit
from recsys.trained.explanations.words.assembly import assemble_words
from recsys.trained.explanations.words.gradients import integrate_tokens
from recsys.trained.queries import Query
from recsys.trained.run import TrainedRun, load
from recsys.types import TokenScore

HERE = Path(__file__).parent
SHORT = ("encoder.max_length=64", "evaluation.max_cases=60")
RUNS = {
    "two towers, users as texts": (
        "tower",
        [
            *("experiment=lora_two_tower", "architecture.user=text", "data.queries=random"),
            *(*SHORT, "trainer.max_steps=60", "trainer.batch_size=32"),
        ],
    ),
    "cross-encoder": (
        "cross",
        [
            *("experiment=lora_cross_encoder", "evaluation.candidates=10"),
            *(*SHORT, "trainer.max_steps=40"),
        ],
    ),
}
OWN, OUT, RANDOM = "own", "leave one out", "random"
KS = (1, 2, 3, 4, 5)
DRAWS = 10  # random orders of the words of a text


class Words:
    """A score with and without some of the words that it reads."""

    def __init__(self, score: TokenScore) -> None:
        self.score = score
        parts = integrate_tokens(score)
        self.whole, self.error = parts.score, parts.error
        self.values: list[float] = []
        self.places: list[torch.Tensor] = []
        for number, passage in enumerate(score.passages):
            at = torch.nonzero(score.owner == number).flatten()
            for word in assemble_words(passage, parts.values[at].tolist()):
                start, end = word.start + passage.begin, word.end + passage.begin
                own = [n for n, (a, b) in enumerate(passage.spans) if a < end and b > start]
                self.values.append(word.value)
                self.places.append(at[own])

    @torch.no_grad()
    def measure_loss(self, removed: Sequence[int]) -> float:
        """By how much the score falls where these words are not in the text."""
        kept = torch.ones(len(self.score.ids), dtype=torch.bool)
        for word in removed:
            kept[self.places[word]] = False
        left = self.score.score(self.score.ids[kept][None], self.score.kinds[kept])
        return self.whole - float(left)

    def measure_losses(self, order: Sequence[int]) -> list[float]:
        """The same without the first k words of an order."""
        return [self.measure_loss(order[:k]) for k in KS]


def name_texts(score: TokenScore) -> str:
    """Which texts are read together."""
    kinds = {passage.kind for passage in score.passages}
    if kinds == {"item"}:
        return "title of the item"
    return "both, as one pair" if "item" in kinds else "text of the user"


def measure_run(run: TrainedRun, users: list[str]) -> tuple[dict[tuple[str, str], Any], float]:
    """(users, k) losses by texts and order, and the largest error of a sum."""
    losses: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    worst, rng = 0.0, random.Random(0)
    best = run.recommend(users=users, k=1)
    for user, item in zip(best["query"], best["item"], strict=True):
        asked = run.suggester.prepare(Query(user=user), item, "now", {})
        scores = asked.recommender.eval().make_token_scores(asked.batch, int(asked.rows[0]), None)
        for score in scores:
            assert isinstance(score, TokenScore)
            words = Words(score)
            worst = max(worst, words.error)
            every = range(len(words.values))
            alone = [words.measure_loss([word]) for word in every]
            texts = name_texts(score)
            for way, values in ((OWN, words.values), (OUT, alone)):
                order = sorted(every, key=lambda word: -values[word])
                losses[texts, way].append(words.measure_losses(order))
            drawn = [words.measure_losses(rng.sample(every, len(every))) for _ in range(DRAWS)]
            losses[texts, RANDOM].append(np.mean(drawn, axis=0).tolist())
    return dict(losses), worst


def main() -> None:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data/ml-100k")
    parser.add_argument("--work", default="runs/explain")
    parser.add_argument("--users", type=int, default=20)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, (folder, words) in RUNS.items():
        output = Path(args.work) / folder
        if not list(output.glob("*/result.json")):
            source = ["data.source=movielens", f"data.source.path={args.data}"]
            if fit([*words, *source, "tracking.wandb=off", f"output={output}"]):
                raise SystemExit(f"{name} was not trained")
        run = load("last", output)
        users = run.suggester.model.tables.users["user"].cast(str).to_list()
        losses, worst = measure_run(run, random.Random(1).sample(users, args.users))
        for (texts, way), values in losses.items():
            table = np.asarray(values)
            row = {"model": name, "texts": texts, "by": way}
            row |= {f"k={k}": bootstrap(table[:, n].tolist()) for n, k in enumerate(KS)}
            for other in (RANDOM, OUT):
                if way == OWN:
                    against = table - np.asarray(losses[texts, other])
                    row[f"less {other}"] = [bootstrap(column.tolist()) for column in against.T]
            rows.append(row)
        rows.append({"model": name, "worst error": worst})
    (HERE / "words.json").write_text(
        json.dumps({"users": args.users, "rows": rows}, indent=1) + "\n"
    )
    write_page(args.users, rows)


def write_page(users: int, rows: list[dict[str, Any]]) -> None:
    """words.md: the intro, and a table."""
    intro = (HERE / "words_head.md").read_text().rstrip()
    errors = "; ".join(
        f"{row['model']} {100 * row['worst error']:.2f}%" for row in rows if "worst error" in row
    )
    lines = [intro.format(users=users, draws=DRAWS, errors=errors), ""]
    lines += ["| model | texts | words by | " + " | ".join(f"k={k}" for k in KS)]
    lines[-1] += " | own less this, k=5 |"
    lines.append("|---|---|---|" + "---|" * (len(KS) + 1))
    for row in rows:
        if "by" not in row:
            continue
        shown = [format_interval(row[f"k={k}"]) for k in KS]
        (own,) = (
            r
            for r in rows
            if r.get("by") == OWN and (r["model"], r["texts"]) == (row["model"], row["texts"])
        )
        last = "" if row["by"] == OWN else format_interval(own[f"less {row['by']}"][-1], "+")
        lines.append(
            f"| {row['model']} | {row['texts']} | {row['by']} | {' | '.join(shown)} | {last} |"
        )
    (HERE / "words.md").write_text("\n".join(lines) + "\n")


def format_interval(interval: Sequence[float], sign: str = "") -> str:
    """A mean and its interval."""
    mean, low, high = (f"{value:{sign}.2f}" for value in interval)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
