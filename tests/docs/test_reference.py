"""What the site says of keys and choices is read off the code, so that none is missing."""

import dataclasses
import typing

import pytest

from recsys.config.choices import PACKAGES, PRETRAINING
from recsys.config.compose import RunConfig, list_choices, list_experiments
from recsys.config.shipped import find_shipped
from tests.docs.test_chapters import load_hook

reference = load_hook("reference")


def keys(schema, prefix=""):
    """All keys of a dataclass, found without the code under test."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from keys(kind, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_every_key_has_a_row_and_a_help():
    rows = [line for line in reference.configuration().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == sorted(
        keys(RunConfig),
        key=lambda key: (
            "." in key,
            list(dataclasses.asdict(RunConfig())).index(key.split(".")[0]),
        ),
    )
    assert all(row.rstrip(" |").split(" | ")[-1].strip() for row in rows)


def test_a_row_says_default_values_and_range():
    page = reference.configuration()
    assert "| `optimizer.warmup` | `0.1` | number, 0 to 1 |" in page
    assert "| `trainer.max_steps` | `null` | integer or null, at least 0 |" in page
    assert "| `evaluation.sampled_by` | `uniform` | `uniform`, `popularity` |" in page
    assert "| `data.source` | `quickstart` | a choice of the axis |" in page


@pytest.mark.parametrize("axis", PACKAGES)
def test_every_choice_has_a_part_with_its_options(axis):
    page = reference.choices(axis)
    for name, summary in list_choices(axis).items():
        part = page.partition(f"### `{name}` ")[2].partition("\n### ")[0]
        assert summary.replace("<", "&lt;") in part
        assert (f"| `{axis}." in part) != ("No options of its own." in part)


def test_every_shipped_file_has_a_part():
    made = reference.experiments()
    assert [name for name in list_experiments() if f"`experiment={name}`" not in made] == []
    pretrained, made = list_experiments(PRETRAINING), reference.pretrainings()
    assert [name for name in pretrained if f"`experiment={name}`" not in made] == []
    assert "[`tsdae`](experiments.md#tsdae)" in reference.choices("pretraining")
    names = [path.stem for path in find_shipped("sweep").glob("*.yaml")]
    assert [name for name in names if f"`sweep={name}`" not in reference.sweeps()] == []
    assert "[`lora_two_tower`](experiments.md#lora_two_tower)" in reference.choices("tuning")
