"""Runs as they lie on disk, made in no time, and what is asked of them."""

import dataclasses
import functools

import numpy as np
import polars as pl

from recsys.compare import methods
from recsys.compare.__main__ import main
from recsys.compare.analysis import compare_methods
from recsys.compare.finished_runs import read_run
from recsys.compare.outcome import ComparisonSettings
from recsys.config.compose import compose, format_config
from recsys.runs import results
from recsys.runtime.files import write_atomic

USERS = 150
TWO = ["architecture=two_tower"]


def cases(ranks, users=USERS):
    """A row a case, as the evaluation leaves it."""
    count = len(ranks)
    return pl.DataFrame(
        {
            "case": np.arange(count),
            "user": [f"u{at % users}" for at in range(count)],
            "history": np.arange(count) % 7,
            "target": [f"i{at % 50}" for at in range(count)],
            "rank": np.asarray(ranks),
            "ties": np.zeros(count, dtype=np.int64),
            "size": np.full(count, 500),
            "cold": np.arange(count) % 5 == 0,
            "unreachable": np.zeros(count, dtype=bool),
            "positives": np.ones(count, dtype=np.int64),
            "popularity": np.arange(count) % 50 * (np.arange(count) % 5 != 0),
        }
    )


@functools.cache
def config(*words):
    return format_config(compose(words))


def leave(root, name, words, frame, edit=lambda result: None):
    """A run's folder, written as a run writes it."""
    folder = root / name
    write_atomic(folder / "config.yaml", config(*words))
    hits = float((frame["rank"] <= 10).mean())
    result = {
        "test": {"hr@10": hits},
        "floors": {},
        "protocol": {"name": "catalog", "mask_history": True, "catalog": 500, "unreachable": 0},
        "cost": {
            "trained_parameters": 10,
            "parameters": 1000,
            "texts": 5,
            "tokens": 50,
            "train_flops": 1e9,
            "train_seconds": 2.0,
            "seconds": 4.0,
            "cpu_seconds": 3.0,
            "anonymous_peak_mb_sampled": 100.0,
        },
        "data": {"fingerprint": "f" * 64, "split": "leave_one_out", "roles_sha256": "r" * 64},
        "versions": {"torch": "2"},
        "code": {},
    }
    edit(result)
    results.write_result(folder, result, frame)
    return folder


def ranks(seed, shift=0.0, count=USERS, common=7):
    """Ranks of which methods share the user's part; `shift` is in logits of being near the top."""
    own, shared = np.random.default_rng([1, seed]), np.random.default_rng([2, common])
    logits = shared.normal(3.0, 1.5, count) + 0.3 * own.normal(size=count) - shift
    return np.clip(np.exp(logits), 1, 500).astype(np.int64)


def question(**changes):
    base = ComparisonSettings("ndcg@10", "frozen two_tower", None, "comparison", 0.95, ())
    return dataclasses.replace(base, **changes)


def compared(folders, **changes):
    found = methods.group_runs([read_run(folder) for folder in folders])
    return compare_methods(found, question(**changes))


def error_of(words, capsys):
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error
