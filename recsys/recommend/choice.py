"""The words of a command that say which items may be recommended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from recsys.errors import ConfigError
from recsys.trained.bundle.bundle import Bundle, open_bundle
from recsys.trained.bundle.manifest import is_bundle
from recsys.trained.queries import Choice, check_diversity
from recsys.trained.run import TrainedRun, load

KEYS = ("where", "items", "columns", "exclude_seen", "diversity", "retriever", "candidates")


def open_model(words: Mapping[str, str], runs: str) -> TrainedRun | Bundle:
    """The run or the bundle that a command asks, with new items where it has any.

    Args:
        words: Of a command, by key.
        runs: Where run=last looks.

    Raises:
        ConfigError: It is none, or is not complete.
        DataError: It is damaged, or the items cannot be read.
    """
    model: TrainedRun | Bundle
    if "folder" in words:
        model = open_bundle(words["folder"], check=False)
    else:
        model = load(words["run"], runs)
    return model.add_items(words["items"]) if "items" in words else model


def parse_choice(words: Mapping[str, str], runs: str) -> Choice:
    """Which items may be recommended, and what is said of them.

    Args:
        words: Of a command, by key.
        runs: Where retriever=last looks.

    Raises:
        ConfigError: A value is none of its key.
    """
    columns = tuple(each.strip() for each in words.get("columns", "").split(","))
    if "columns" in words and not all(columns):
        raise ConfigError("columns= names no column; give names, as in columns=year,genres.")
    try:
        diversity = float(words.get("diversity", "0"))
    except ValueError:
        diversity = math.nan
    if math.isnan(diversity):
        raise ConfigError(f"diversity is '{words['diversity']}'; give a number from 0 to 1.")
    return Choice(
        where=words.get("where"),
        exclude_seen=parse_switch(words, "exclude_seen", True),
        columns=columns if "columns" in words else (),
        diversity=check_diversity(diversity),
        retriever=_open_retriever(words, runs),
        candidates=int(words["candidates"]) if "candidates" in words else None,
    )


def _open_retriever(words: Mapping[str, str], runs: str) -> TrainedRun | Bundle | None:
    """What proposes the items, or None.

    Raises:
        ConfigError: The folder is neither a finished run nor a bundle.
        DataError: It is damaged.
    """
    if "retriever" not in words:
        return None
    if not words["retriever"]:
        raise ConfigError("retriever= names no folder; give that of a finished run or a bundle.")
    key = "folder" if is_bundle(Path(words["retriever"])) else "run"
    items = {"items": words["items"]} if "items" in words else {}
    return open_model({key: words["retriever"], **items}, runs)


def parse_switch(words: Mapping[str, str], key: str, default: bool) -> bool:
    """Whether a key is true.

    Raises:
        ConfigError: It is neither true nor false.
    """
    value = words.get(key, "true" if default else "false")
    if value not in ("true", "false"):
        raise ConfigError(f"{key} is '{value}'; set it to true or false.")
    return value == "true"
