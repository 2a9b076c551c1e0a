"""python -m recsys.data source=NAME path=... [key=value ...]: what a data set is, as it is used."""

from __future__ import annotations

from recsys import printable
from recsys.runtime import command

command.exit_on_interrupt(__name__)

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from recsys.config.compose import AXES, compose_data, list_choices, nearest
from recsys.config.flags import run_words
from recsys.config.help import (
    ALL,
    format_axis,
    format_entries,
    format_names,
    format_prose,
    format_topics,
)
from recsys.config.schema import DataOptions
from recsys.data import export, prepare
from recsys.data.describe import (
    Count,
    Description,
    describe_split,
    describe_tables,
    estimate_tokens,
    warn_of_ratings,
)
from recsys.data.moments import check_query_column
from recsys.data.reviews import add_reviews
from recsys.data.splits.methods import Method, collect_events
from recsys.data.tables import Tables
from recsys.errors import ConfigError, raise_file_error
from recsys.words import find_value, split_word

_AXIS = "data.source"
OWN_KEYS = (
    (
        "output=FOLDER",
        "write interactions, items and users as Parquet there, for data.source=tables "
        "data.source.path=FOLDER; its split is kept, and the line that is printed says which "
        "further keys to repeat",
    ),
    ("encoder=MODEL", "count tokens with the tokeniser of a language model, not by words"),
)
_LEGEND = "least / 25 % / half / 75 % / 90 % / most"


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is printed as one sentence.
    """
    return run_words(argv, _format_usage, _run)


def _format_usage(words: Sequence[str]) -> str:
    """What `--help` prints: of a source that is named its keys, else what to type."""
    shared = {f.name: f"data.{f.name}" for f in fields(DataOptions)}
    named = [word for word in words if word.partition("=")[0] in (*shared, *shared.values())]
    if ALL not in words and named:
        return "\n".join(format_topics(named, shared))
    lines = ["usage: python -m recsys.data source=NAME [path=FOLDER] [key=value ...]", ""]
    lines += format_prose(
        "Prints what a data set is, after the filters and with the split that are asked for. Keys "
        "of the source and of data are taken with and without their prefix."
    )
    lines += ["", *format_entries(OWN_KEYS), ""]
    if ALL in words:
        return "\n".join([*lines, *format_axis(_AXIS), "", *format_topics(["data"])])
    lines += format_names("source: ", list_choices(_AXIS))
    names = (field.name for field in fields(DataOptions) if field.name != "source")
    lines += format_names("keys:   ", names)
    more = [
        ("source=tables --help", "a source: its keys with their defaults"),
        (f"--help {ALL}", "what each key does"),
    ]
    return "\n".join([*lines, "", *format_entries(more)])


def _parse_words(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words with their full keys, and those of the command's own keys.

    Raises:
        ConfigError: A word is not of the form key=value, or its key is unknown.
    """
    given: dict[str, str] = {}
    for word in argv:
        key, value = split_word(word, "source=movielens")
        given["source" if key == "data.source" else key] = value
    name = given.pop("source", None)
    if not name:
        raise ConfigError(f"source is missing.{nearest('', list_choices(_AXIS))}")
    compose_data([f"{_AXIS}={name}"])  # raises the error for an unknown name
    module = importlib.import_module(name if "." in name else f"{AXES[_AXIS]}.{name}")
    own = {field.name for field in fields(module.Config)}
    shared = {field.name for field in fields(DataOptions)} - {"source"}
    words, rest = [f"{_AXIS}={name}"], {}
    for key, value in given.items():
        # Messages give keys as fit has them, which are taken as well.
        key = key.removeprefix("data.source.").removeprefix("data.")
        head = key.partition(".")[0]
        if head in ("output", "encoder"):
            rest[key] = value
        elif head in own:
            words.append(f"{_AXIS}.{key}={value}")
        elif head in shared:
            words.append(f"data.{key}={value}")
        else:
            known = sorted(own | shared | {"output", "encoder"})
            raise ConfigError(f"{key} is not a known key.{nearest(key, known)}")
    return words, rest


@raise_file_error()
def _run(argv: Sequence[str]) -> None:
    words, rest = _parse_words(argv)
    run = compose_data(words)
    data, out = run.data, Path(rest["output"]) if "output" in rest else None
    if out is not None:
        export.check_free(out)
    count = _make_token_counter(rest["encoder"]) if "encoder" in rest else estimate_tokens
    tables = prepare.load_tables(data)
    check_query_column(data, tables)
    print(f"{find_value(words, _AXIS)}, quantiles as {_LEGEND}")
    found = describe_tables(tables, collect_events(tables), count, data.max_tokens)
    _show(Description(found.rows, [*found.warnings, *warn_of_ratings(tables, data.positive_from)]))
    method = _show_split(data, tables)
    if out is not None:
        # As they are, without reviews in the user texts: those are a matter of the split.
        used = export.make_export_settings(data, method)
        export.write_tables(out, tables, used)
        words = ["data.source=tables", f"data.source.path={out}", *used.format_options()]
        print(f"written: {out} (to use it as it is described here: {shlex.join(words)})")


def _show_split(data: DataOptions, tables: Tables) -> Method | None:
    """Shows the split and returns how it is made; None where there is none to propose."""
    try:
        made = prepare.split_tables(data, tables)
    except ConfigError as error:
        if data.split != "default" or data.user_reviews:
            raise
        _show(Description([("split", "none")], [str(error)]))
        return None
    _show(describe_split(made, tables.items.height))
    if data.user_reviews:
        tables = add_reviews(tables, made, data.user_reviews)
    for note in (*tables.notes, *made.notes):
        print(printable.escape_line(f"note: {note}"))
    return prepare.find_split_method(data)


def _show(description: Description) -> None:
    for name, value in description.rows:
        print(printable.escape_line(f"  {name:<36}{value}"))
    for sentence in description.warnings:
        print(printable.escape_line(f"warning: {sentence}"))


def _make_token_counter(model: str) -> Count:
    """Counts with the tokeniser of a language model.

    Raises:
        ConfigError: It cannot be had.
    """
    from recsys.encoders.pretrained.source import ModelFiles
    from recsys.encoders.pretrained.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(ModelFiles.locate(model))

    def count(texts: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
        ids = cast(
            list[list[int]], tokenizer(texts.to_list(), add_special_tokens=False)["input_ids"]
        )
        return np.array([len(each) for each in ids], dtype=np.int64)

    return count


if __name__ == "__main__":
    command.run_command(main)
