"""The names of a run's files: users and old folders know them, and one place writes them."""

from __future__ import annotations

import ast
from pathlib import Path

import recsys
from recsys.runtime import files

NAMES = {
    "config.yaml",
    "start.json",
    "result.json",
    "cases.parquet",
    "validations.jsonl",
    "log/metrics.csv",
    "checkpoints",
    "checkpoints/last.ckpt",
    "checkpoints/best.safetensors",
    "profile.json",
    "ended.json",
    "rank_error.json",
    "error.txt",
    "tracking.json",
    "seeds.json",
}
"""Folders of before have them."""

LATER = {
    "fit.json",
    "pretraining.yaml",
    "encoder",
    "sweep.json",
    "data.json",
    "current.json",
    "catalog.parquet",
    "job.json",
    "repeated.parquet",
}


def list_names() -> set[str]:
    constants = {name: value for name, value in vars(files).items() if name.isupper()}
    return {str(value) for value in constants.values() if isinstance(value, str | Path)}


def test_the_names_are_those_that_folders_of_before_have() -> None:
    assert list_names() - {"log"} == NAMES | LATER


def test_no_other_module_writes_a_name_of_its_own() -> None:
    known = {part for name in (NAMES | LATER) - {"encoder"} for part in (name, Path(name).name)}
    again = []
    for path in Path(recsys.__file__).parent.rglob("*.py"):
        if path == Path(files.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in known:
                again.append(f"{path.name}:{node.lineno} {node.value}")
    assert again == []
