"""Tests a finished run one case at a time: what it answers, and how long that takes.

Usage: python benchmarks/quality/answers.py RUN CASES

Beside the run's files come `answers.json` (metrics, seconds, tokens, memory) and `answers.parquet`
(a row a case; where the user's own labelled events are ranked, with the score of the first). A fit
that tests would validate as many cases at its start and at its end, which takes a decoder on a CPU
longer than its training; so it does neither, and keeps its last step.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recsys.assembly import build
from recsys.assembly.assembled import Assembly
from recsys.assembly.stored_runs import drop_hard_negatives, restore
from recsys.config.compose import RunConfig, read_config
from recsys.recommender.trainable import TrainableRecommender
from recsys.runs.results import make_cases_frame
from recsys.runtime.files import CONFIG, write_atomic
from recsys.runtime.memory import MemoryMonitor
from recsys.types import Batch

ANSWERS, ROWS = "answers.json", "answers.parquet"
CUTS = [1, 5, 10]
"""Cut-offs of the metrics of rankings."""


def assemble(folder: Path, cases: int | None) -> tuple[RunConfig, Assembly]:
    """A finished run that is to test so many cases, one at a time."""
    config = read_config(folder / CONFIG)
    own = config.evaluation
    k = own.k if own.protocol == "labels" else CUTS
    evaluation = dataclasses.replace(
        own, test=True, max_cases=cases, batch_size=1, beyond=False, k=k
    )
    config = drop_hard_negatives(dataclasses.replace(config, evaluation=evaluation))
    made = build.assemble(config)
    restore(made.recommender, config, folder)
    return config, made


@torch.no_grad()
def answer(folder: Path, cases: int | None) -> None:
    """Tests a run and writes both files.

    Args:
        folder: Of the run.
        cases: How many test cases; None: all.
    """
    config, made = assemble(folder, cases)
    model = made.recommender.eval()
    evaluator, labels = model.evaluator, config.evaluation.protocol == "labels"
    evaluator.start(model)
    vectors = model.index_catalog()
    seconds, scores, users = [], [], []
    work = model.work if isinstance(model, TrainableRecommender) else None
    with MemoryMonitor() as memory:
        began = time.process_time()
        for batch in made.datamodule.test_dataloader():
            if work is not None:
                work.counting = True
            start = time.perf_counter()
            if labels:
                scores.append(float(model.score_candidates(batch, vectors[batch.plan.items])[0, 0]))
                users.append(_find_user(made, batch))
            else:
                evaluator.step(model.ranker, batch)
            seconds.append(time.perf_counter() - start)
            if work is not None:
                work.counting = False
        spent = time.process_time() - began
    if labels:
        rows, test = pl.DataFrame({"user": users, "score": scores}), {}
    else:
        rows = make_cases_frame(evaluator.rows, made.tables)
        test = {name: float(value) for name, value in evaluator.end().items()}
    said = {
        "asked": cases,
        "cases": len(seconds),
        "test": test,
        "cpu_seconds": spent,
        "milliseconds": 1000 * float(np.median(seconds)),
        "tokens": None if work is None else work.tokens / len(seconds),
        "peak_mb": memory.peak,
        "threads": torch.get_num_threads(),
    }
    rows.write_parquet(folder / ROWS)
    write_atomic(folder / ANSWERS, (json.dumps(said, indent=1) + "\n").encode())


def _find_user(made: Assembly, batch: Batch) -> str:
    return str(made.tables.users["user"][int(batch.users[0])])


def main(argv: list[str]) -> int:
    """Tests the named run."""
    if len(argv) != 2 or not (Path(argv[0]) / CONFIG).is_file():
        print(__doc__)
        return 2
    answer(Path(argv[0]), None if argv[1] == "all" else int(argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
