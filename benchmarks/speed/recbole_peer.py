"""RecBole's side of the evaluation: its own evaluator on given scores, and its SASRec.

It runs in a virtual environment of its own, as RecBole 1.2.1 needs older packages than recsys:

    torch<2.14 numpy<2 scipy<1.14 pandas<2.3 setuptools<80 ray==2.6.3 colorlog==4.7.2
    colorama==0.4.4 thop tensorboard plotly tabulate texttable psutil pyyaml tqdm scikit-learn
    and then, without dependencies: recbole==1.2.1

Usage: PYTHON recbole_peer.py metrics CASES.npz    (`evaluation.py` starts it and talks to it)
       PYTHON recbole_peer.py sasrec DATA [EPOCHS] (writes results/sasrec-ml-100k.json)
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
SASREC = HERE / "results" / "sasrec-ml-100k.json"
LIFT = 2.5  # added to a target's score, so that some targets stand among the first ten


class Cases(NamedTuple):
    """What is ranked, the same for every side.

    Attributes:
        target: (Q,) column of each case's target.
        seen: (S, 2) case and column that is masked, sorted by case.
        items: Number of columns.
    """

    target: Tensor
    seen: Tensor
    items: int


def given_scores(cases: Cases) -> Tensor:
    """(Q, I) made-up scores, the same in every process: normal, the target's raised."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(len(cases.target), cases.items, generator=generator)
    scores[torch.arange(len(cases.target)), cases.target] += LIFT
    return scores


class RecBole:
    """RecBole's collector and evaluator, fed as its Trainer feeds them.

    Args:
        cases: What is ranked. RecBole counts items from 1; its column 0 is padding.
        block: Users of a batch.
    """

    def __init__(self, cases: Cases, scores: Tensor, block: int) -> None:
        from recbole.config import Config
        from recbole.evaluator import Collector, Evaluator

        options = {
            "metrics": ["Hit", "NDCG", "MRR", "MAP"],
            "topk": [10],
            "metric_decimal_place": 12,
            "valid_metric": "NDCG@10",
            "train_neg_sample_args": None,
            "use_gpu": False,
        }
        with _quiet():
            config = Config(model="SASRec", dataset="ml-100k", config_dict=options)
        self.collector, self.evaluator = Collector(config), Evaluator(config)
        self.blocks = []
        for at in torch.split(torch.arange(len(cases.target)), block):
            mine = (cases.seen[:, 0] >= at[0]) & (cases.seen[:, 0] <= at[-1])
            row, column = cases.seen[mine].unbind(1)
            history = (row - at[0], column + 1)
            self.blocks.append((scores[at[0] : at[-1] + 1], history, cases.target[at] + 1))

    def __call__(self) -> dict[str, float]:
        """All metrics from the scores, with the steps of `TrainerOptions.evaluate`."""
        for scores, history, target in self.blocks:
            scores[:, 0] = -np.inf
            scores[history] = -np.inf
            rows = torch.arange(len(target))
            self.collector.eval_batch_collect(scores, None, rows, target)
        found = self.evaluator.evaluate(self.collector.get_data_struct())
        return {name: float(value) for name, value in found.items()}


def serve(path: Path) -> None:
    """Answers each line `block times` of the input with a line of seconds and metrics.

    The other process asks for a run between its own, so that whatever else the machine does meets
    all sides alike; what is timed is timed here.
    """
    from measure import once

    with np.load(path) as file:
        cases = Cases(
            torch.from_numpy(file["target"]), torch.from_numpy(file["seen"]), int(file["items"])
        )
    scores = torch.cat([torch.zeros(len(cases.target), 1), given_scores(cases)], dim=1)
    sides: dict[int, RecBole] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        block, times = (int(word) for word in line.split())
        if block not in sides:
            sides[block] = RecBole(cases, scores, block)
        found: dict[str, float] = {}
        wall, cpu = once(lambda side=sides[block], into=found: into.update(side()), times)
        print(json.dumps({"wall": wall, "cpu": cpu, "metrics": found}), flush=True)


SASREC_OPTIONS: dict[str, Any] = {
    "eval_step": 0,
    "train_neg_sample_args": None,
    "loss_type": "CE",
    "MAX_ITEM_LIST_LENGTH": 50,
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": "full",
    },
    "metrics": ["Hit", "NDCG", "MRR", "MAP"],
    "valid_metric": "NDCG@10",
    "topk": [10],
    "metric_decimal_place": 12,
    "use_gpu": False,
    "show_progress": False,
}
"""Where it differs from RecBole's defaults."""


def sasrec(data: Path, epochs: int) -> None:
    """Trains RecBole's SASRec on ml-100k and keeps split, ranks and seconds.

    Leave-one-out by time, softmax over all items, histories of 50, and everything else as RecBole
    has it by default; no validation in between.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    options = {**SASREC_OPTIONS, "data_path": str(data), "epochs": epochs}
    os.chdir(tempfile.mkdtemp())  # for the files that RecBole leaves where it runs
    with _quiet():
        config = Config(model="SASRec", dataset="ml-100k", config_dict=options)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    seconds: list[float] = []
    cpu: list[float] = []
    trainer._train_epoch = _timed(trainer._train_epoch, seconds, cpu)
    trainer.fit(train, None, verbose=False, saved=False)
    began = time.perf_counter()
    metrics = trainer.evaluate(test, load_best_model=False)
    content = {
        "command": "PYTHON benchmarks/speed/recbole_peer.py sasrec DATA "
        + f"{epochs}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}",
        "config": {k: v for k, v in options.items() if k != "data_path"},
        "batch_size": config["train_batch_size"],
        "hidden_size": config["hidden_size"],
        "sequences": len(train.dataset),
        "threads": torch.get_num_threads(),
        "epoch_seconds": seconds,
        "epoch_cpu_seconds": cpu,
        "test_seconds": time.perf_counter() - began,
        "metrics": {name: float(value) for name, value in metrics.items()},
        "cases": _ranks(model, dataset, test),
    }
    SASREC.write_text(json.dumps(content, separators=(",", ":")) + "\n")


@torch.no_grad()
def _ranks(model: Any, dataset: Any, test: Any) -> dict[str, list[int]]:  # noqa: ANN401
    """Where each test target stands among all items, nothing masked, as RecBole ranks them.

    Returns:
        The data set's own ids of user and target, items scored higher, and others scored the same.
    """
    model.eval()
    out: dict[str, list[int]] = {"user": [], "target": [], "greater": [], "equal": []}
    for interaction, _, _, target in test:
        scores = model.full_sort_predict(interaction)[:, 1:]
        own = scores.gather(1, target[:, None] - 1)
        out["greater"] += (scores > own).sum(1).tolist()
        out["equal"] += ((scores == own).sum(1) - 1).tolist()
        users = dataset.id2token(dataset.uid_field, interaction[dataset.uid_field].numpy())
        items = dataset.id2token(dataset.iid_field, target.numpy())
        out["user"] += [int(word) for word in users]
        out["target"] += [int(word) for word in items]
    return out


def _timed(call: Callable[..., object], wall: list[float], cpu: list[float]) -> Callable[..., Any]:
    """The call, which notes its seconds."""

    def timed(*words: object, show_progress: bool = False) -> object:
        a, b = time.perf_counter(), time.process_time()
        found = call(*words, show_progress=show_progress)
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
        print(f"epoch {len(wall)}: {wall[-1]:.0f} s", flush=True)
        return found

    return timed


class _quiet:
    """Keeps RecBole from reading the command line as its own options, and from warnings."""

    def __enter__(self) -> None:
        self.words, sys.argv = sys.argv, sys.argv[:1]
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        sys.argv = self.words


def main(argv: list[str]) -> int:
    """Serves metrics or trains SASRec."""
    if len(argv) == 2 and argv[0] == "metrics":
        serve(Path(argv[1]))
    elif len(argv) in (2, 3) and argv[0] == "sasrec" and Path(argv[1]).is_dir():
        sasrec(Path(argv[1]).resolve(), int(argv[2]) if len(argv) == 3 else 1)
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
