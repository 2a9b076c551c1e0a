"""Lists of many users into a file: users=all or users=FILE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from recsys import printable
from recsys.config.compose import nearest
from recsys.errors import ConfigError
from recsys.recommend.choice import KEYS, open_model, parse_choice
from recsys.words import find_value, require_count, split_single_words

USERS = "users"
CONTEXT = "context."
_KEYS = (
    *("run", "folder", USERS, "output", "k", "at", *KEYS),
    *("unknown", "shard", "runs", f"{CONTEXT}COLUMN"),
)
WORDS = (
    (
        "users=all|FILE",
        "lists of all users of the data, or of a .csv, .tsv, .jsonl or .parquet file: its column "
        "user has their ids; where it has a column history, ids of items with commas between them "
        "(or a list), they are people whom the data does not have",
    ),
    (
        "output=FILE",
        "with users=: the lists, .parquet, .csv or .jsonl; the same command goes on after a stop",
    ),
    ("shard=3/16", "with users=: the third of sixteen parts, into a file of its own"),
    ("unknown=error", "with users=FILE: skip leaves unknown ids out"),
    ("runs=runs", "with users=: where run=last looks"),
)


def is_bulk(words: Sequence[str]) -> bool:
    """Whether the words of a command ask for the lists of many users."""
    return find_value(words, USERS) is not None


def write(argv: Sequence[str]) -> list[str]:
    """Writes the lists.

    Args:
        argv: What was typed.

    Returns:
        A line on the file.

    Raises:
        ConfigError: A word is not understood or does not fit, or the run cannot be read.
        DataError: A file cannot be read or written, or an id is unknown.
    """
    from recsys.trained.bulk.output import Shard, check_ending
    from recsys.trained.bulk.write import ListRequest, parse_users

    words = _parse_words(argv)
    output, runs = Path(words["output"]), words.get("runs", "runs")
    check_ending(output)
    shard = Shard.parse(words["shard"]) if "shard" in words else None
    request = ListRequest(
        output=output,
        users=parse_users(words[USERS]),
        k=int(words.get("k", "10")),
        at=words.get("at", "now"),
        context={k.removeprefix(CONTEXT): v for k, v in words.items() if k.startswith(CONTEXT)},
        choice=parse_choice(words, runs),
        unknown=_parse_unknown(words.get("unknown", "error")),
        shard=shard,
    )
    return [printable.escape_line(str(open_model(words, runs).answer_request(request)))]


def _parse_words(argv: Sequence[str]) -> dict[str, str]:
    """The words by key.

    Raises:
        ConfigError: One is not understood or there twice, or one is missing.
    """
    words = split_single_words(argv, "users=all")
    for key, value in words.items():
        if key in ("user", "history", "text"):
            raise ConfigError(f"give one of users= and {key}=; --help says more.")
        if key not in _KEYS and (not key.startswith(CONTEXT) or key == CONTEXT):
            raise ConfigError(f"'{key}={value}' is not understood.{nearest(key, _KEYS)}")
    if sum(of in words for of in ("run", "folder")) != 1:
        raise ConfigError("give run= or folder=; --help says more.")
    if not words[USERS]:
        raise ConfigError("users= names no file; give one, or users=all.")
    if not words.get("output"):
        raise ConfigError(
            "output= names no file for the lists; give one, as in output=lists.parquet (where "
            "run=last looks is runs=)."
        )
    for count in ("k", "candidates"):
        if count in words:
            require_count(count, words[count], 1)
    return words


def _parse_unknown(word: str) -> Literal["error", "skip"]:
    if word == "error":
        return "error"
    if word == "skip":
        return "skip"
    raise ConfigError(f"unknown is '{word}'; set it to error or skip.")
