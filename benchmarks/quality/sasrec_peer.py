"""RecBole's side of `sasrec.py`: its SASRec on given interactions, in an interpreter of its own.

How that interpreter is set up stands in `benchmarks/speed/recbole_peer.py`.

Usage: PYTHON sasrec_peer.py SETTINGS.json OUT.json    (`sasrec.py` starts it)
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def options(asked: dict[str, Any]) -> dict[str, Any]:
    """Where a run differs from RecBole's defaults."""
    return {
        "data_path": asked["folder"],
        "seed": asked["seed"],
        "epochs": asked["epochs"],
        "train_batch_size": asked["batch"],
        "learning_rate": asked["lr"],
        "MAX_ITEM_LIST_LENGTH": asked["history"],
        "n_layers": asked["layers"],
        "n_heads": asked["heads"],
        "hidden_size": asked["width"],
        "inner_size": asked["width"],
        "hidden_dropout_prob": asked["dropout"],
        "attn_dropout_prob": asked["dropout"],
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_step": 1,
        "stopping_step": asked["epochs"] + 1,
        "eval_batch_size": 256,
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": "full",
        },
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "metrics": ["Hit", "NDCG"],
        "valid_metric": "NDCG@10",
        "topk": [10],
        "metric_decimal_place": 12,
        "use_gpu": False,
        "show_progress": False,
    }


def train(asked: dict[str, Any]) -> dict[str, Any]:
    """Trains, keeps the best epoch on validation, and ranks the test targets.

    Returns:
        Seconds of training and of its validations, on the clock and of the CPU; how many
        sequences an epoch has; what RecBole says of the test; and where each target stands.
    """
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.set_num_threads(asked["threads"])
    os.chdir(tempfile.mkdtemp())  # for the files that RecBole leaves where it runs
    words, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line as its own options
    logging.disable(logging.WARNING)
    config = Config(model="SASRec", dataset="short", config_dict=options(asked))
    sys.argv = words
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid, test = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset)
    trainer = Trainer(config, model)
    best: dict[str, torch.Tensor] = {}

    def keep(epoch: int, verbose: bool = True, **_: object) -> None:
        best.update({name: value.clone() for name, value in model.state_dict().items()})

    # In memory: the file that RecBole would write is one that its torch.load refuses to read.
    trainer._save_checkpoint = keep
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.fit(train_data, valid, verbose=False, saved=True, show_progress=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    model.load_state_dict(best)
    metrics = trainer.evaluate(test, load_best_model=False)
    return {
        "wall": wall,
        "cpu": cpu,
        "sequences": len(train_data.dataset),
        "steps": len(train_data) * asked["epochs"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "items": int(dataset.item_num) - 1,
        "own": {name.lower(): float(value) for name, value in metrics.items()},
        "cases": _ranks(model, dataset, test),
    }


@torch.no_grad()
def _ranks(model: Any, dataset: Any, test: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Where each test target stands among all items, nothing masked.

    Returns:
        The data set's own ids of user and target, items scored higher, and others scored the same.
    """
    model.eval()
    out: dict[str, list[Any]] = {"user": [], "target": [], "greater": [], "equal": []}
    for interaction, _, _, target in test:
        scores = model.full_sort_predict(interaction)[:, 1:]  # its column 0 is padding
        own = scores.gather(1, target[:, None] - 1)
        out["greater"] += (scores > own).sum(1).tolist()
        out["equal"] += ((scores == own).sum(1) - 1).tolist()
        users = dataset.id2token(dataset.uid_field, interaction[dataset.uid_field].numpy())
        out["user"] += [str(word) for word in users]
        out["target"] += [str(word) for word in dataset.id2token(dataset.iid_field, target.numpy())]
    return out


def main(argv: list[str]) -> int:
    """Trains as a file says."""
    if len(argv) != 2:
        print(__doc__)
        return 2
    asked, out = json.loads(Path(argv[0]).read_text()), Path(argv[1]).resolve()
    out.write_text(json.dumps(train(asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
