"""Which keys may differ between the seeds of one method, and which make two methods of it."""

import dataclasses
import json

import polars as pl
import pytest
from safetensors.torch import load_file

from recsys.compare import methods
from recsys.compare.finished_runs import read_run
from recsys.compare.keys import HELD, METHOD, NEUTRAL, TRAINING, is_within
from recsys.config.compose import AXES
from recsys.config.schema import RunConfig
from recsys.fit.__main__ import main as fit
from tests.compare.samples import TWO, cases, leave, ranks


def keys(group=RunConfig, prefix=""):
    """The keys of the schema; an axis is one, whatever its choices have."""
    for field in dataclasses.fields(group):
        name = prefix + field.name
        inner = field.default_factory
        if name not in AXES and dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{name}.")
        else:
            yield name


def test_every_key_of_the_schema_is_in_one_table():
    tables = (*NEUTRAL, *HELD, *METHOD)
    unknown = [key for key in keys() if key not in tables]
    assert unknown == [], "say in recsys/compare/keys.py whether it changes a weight or a rank"
    assert sorted(tables) == sorted(keys())
    assert [key for key in keys() if is_within(key, TRAINING)]
    assert all(any(is_within(key, [name]) for key in keys()) for name in TRAINING)
    assert all(neutral.reason for neutral in NEUTRAL.values())


def found(tmp_path, left, right, base=TWO):
    runs = [
        leave(tmp_path, name, [*base, *words, f"seed={at}"], cases(ranks(at)))
        for at, (name, words) in enumerate({"a": left, "b": right}.items())
    ]
    return [method.label for method in methods.group_runs([read_run(run) for run in runs])]


@pytest.mark.parametrize(
    ("key", "left", "right"),
    [
        ("checkpoint.pick", "best", "last"),
        # Both test all their cases; the validation, which picks the checkpoint, is a sample.
        ("evaluation.max_cases", "5000", "6000"),
        ("data.sample_seed", "0", "1"),
        ("encoder.cache_dtype", "fp32", "fp16"),
        ("trainer.precision", "fp32", "bf16-mixed"),
        ("trainer.accumulate", "1", "2"),
    ],
)
def test_a_key_that_changes_what_is_kept_makes_two_methods(tmp_path, key, left, right):
    words = [f"{key}={left}"], [f"{key}={right}"]
    assert found(tmp_path / "trained", *words) == [
        f"lora two_tower {key}={value}" for value in (left, right)
    ]
    if is_within(key, ("checkpoint", "evaluation.max_cases", "data.sample_seed")):
        # Nothing is picked where nothing trains.
        one = leave(tmp_path, "floor", ["architecture=popularity"], cases(ranks(0)))
        run = read_run(one)
        group, _, name = key.partition(".")
        other = {**run.config, group: {**run.config[group], name: right}}
        changed = dataclasses.replace(run, config=other)
        assert methods.make_identity(run) == methods.make_identity(changed)


@pytest.mark.slow
def test_neutral_keys_change_no_weight_and_no_rank(shop_base, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    words = [*shop_base, "tuning=lora", "tuning.layers=1", "regularization.dropout=0"]
    changed = {
        "profile": "true",
        "tracking.wandb": "off",
        "tracking.project": "x",
        "tracking.group": "x",
        "tracking.tags": "[x]",
        "tracking.name": "x",
        "tracking.kind": "x",
        "tracking.labels": "{method: x}",
        "tracking.tensorboard": "true",
        "tracking.checkpoint_artifact": "true",
        "checkpoint.every_minutes": "0",
        "trainer.threads": "2",
        "trainer.deterministic": "false",
        "trainer.log_every": "1",
        "encoder.cache": "false",
        "encoder.cache_gb": "1",
        "encoder.cache_place": "memory",
        "encoder.chunk_tokens": "32",
        "encoder.packing": "on",
        "encoder.checkpoint_chunks": "true",
        "evaluation.k": "[3,10]",
        "evaluation.slices": "[name]",
        "evaluation.beyond": "false",
        "evaluation.category": "name",
        "evaluation.batch_size": "7",
    }
    # Another accelerator is not here, and several processes have tests of their own.
    apart = {"seed", "experiment", "output", "trainer.devices", "trainer.accelerator"}
    apart |= {"trainer.nodes", "trainer.strategy", "checkpoint.requeue"}
    assert set(changed) == set(NEUTRAL) - apart - {"evaluation.test"}
    for name, more in (("a", []), ("b", [f"{k}={v}" for k, v in changed.items()])):
        assert fit([*words, *more, f"output={tmp_path / name}"]) == 0
    (a,), (b,) = (list((tmp_path / name).iterdir()) for name in "ab")
    weights = [load_file(run / "checkpoints" / "best.safetensors") for run in (a, b)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        # In norm: Adam's first steps are as large for a gradient that is all rounding.
        assert (value - weights[1][name]).norm() <= 1e-4 * value.norm(), name
    one, other = (pl.read_parquet(run / "cases.parquet") for run in (a, b))
    assert one["rank"].to_list() == other["rank"].to_list()
    steps = [json.loads((run / "result.json").read_text())["validation"]["step"] for run in (a, b)]
    assert steps[0] == steps[1] > 0
