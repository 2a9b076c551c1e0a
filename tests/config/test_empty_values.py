"""A key that may be empty takes nothing, null and two quotes alike, in every group and source."""

import dataclasses
import importlib
import typing

import polars as pl
import pytest

from recsys.config.compose import AXES, compose, compose_data, list_choices
from recsys.config.ranges import can_be_empty
from recsys.config.schema import RunConfig
from recsys.data import prepare
from recsys.errors import ConfigError


def keys():
    """Each text key with its group's words: (words, key, field, kind)."""

    def walk(schema, prefix, words):
        hints = typing.get_type_hints(schema)
        for field in dataclasses.fields(schema):
            kind = hints[field.name]
            if dataclasses.is_dataclass(kind):
                yield from walk(kind, f"{prefix}{field.name}.", words)
            elif kind is str or (str in typing.get_args(kind) and field.default is None):
                yield words, f"{prefix}{field.name}", field, kind

    yield from walk(RunConfig, "", [])
    for axis, package in AXES.items():
        for name in list_choices(axis):
            config = importlib.import_module(f"{package}.{name}").Config
            yield from walk(config, f"{axis}.", [f"{axis}={name}"])


KEYS = [pytest.param(*each, id="/".join([*each[0], each[1]])) for each in keys()]


def set_to(words, key, typed):
    found = compose([*words, f"{key}={typed}"])
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("words", "key", "field", "kind"), KEYS)
def test_nothing_null_and_quotes_are_one(words, key, field, kind):
    if kind is str and can_be_empty(field):
        assert {set_to(words, key, typed) for typed in ("", "null", "''", '""', "~")} == {""}
    elif kind is str:
        for typed in ("", "null"):
            with pytest.raises(ConfigError, match=rf"{key} is empty; give it a value"):
                set_to(words, key, typed)
    else:
        assert {set_to(words, key, typed) for typed in ("", "null")} == {None}
        if field.metadata.get("blank"):
            assert {set_to(words, key, typed) for typed in ("''", '""')} == {None}


def test_what_says_that_it_may_be_empty_is_no_small_part():
    empty = {key for _, key, field, kind in keys() if kind is str and can_be_empty(field)}
    said = ("time", "rating", "weight", "review", "users", "user_text")
    assert {f"data.source.{name}" for name in said} <= empty
    assert "output" not in empty


@pytest.mark.parametrize("typed", ["", "null", "''"])
def test_lists_mappings_and_numbers_take_nothing_as_well(typed):
    run = compose([f"{key}={typed}" for key in ("tracking.tags", "data.event_types")])
    assert (run.tracking.tags, run.data.event_types) == ([], {})
    assert compose([f"trainer.max_steps={typed}"]).trainer.max_steps is None


@pytest.mark.parametrize("typed", ["", "null", "''"])
def test_a_table_without_times_is_read(typed, shop):
    run = compose_data(
        [
            "data.source=tables",
            f"data.source.interactions={shop / 'events.csv'}",
            f"data.source.items={shop / 'items.csv'}",
            *("data.source.user=who", "data.source.item=what", f"data.source.time={typed}"),
            *("data.source.item_text='{name}'", "data.split=leave_one_out"),
        ]
    )
    tables, split = prepare.prepare_data(run.data)
    assert "time" not in tables.interactions.columns
    assert tables.interactions["when"].dtype == pl.String
    assert split.time is None
