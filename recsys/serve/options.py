"""The words of the command as typed options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from recsys.errors import ConfigError, nearest
from recsys.serve.places import choose_state
from recsys.words import parse_count

KEY_VARIABLE = "RECSYS_SERVE_KEY"
"""Environment variable of the API key."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""

_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Limits:
    """What the service takes; more is refused at once, so that it stays quick for the rest.

    Attributes:
        max_body: Bytes of a request.
        max_text: Characters of a text.
        max_history: Items of a history.
        max_k: Items that may be asked for.
        max_events: Events or items in one request.
        max_lines: Lines of a conversation.
        max_added: Items that may be added while it runs, all in all.
        concurrency: Requests in work at once.
        queue: Queries that may wait for the model.
        batch_tokens: Tokens of a batch.
        batch_queries: Queries of a batch.
    """

    max_body: int = 262_144
    max_text: int = 8_000
    max_history: int = 1_000
    max_k: int = 1_000
    max_events: int = 1_000
    max_lines: int = 100
    max_added: int = 100_000
    concurrency: int = 256
    queue: int = 128
    batch_tokens: int = 4_096
    batch_queries: int = 32


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, and where.

    Attributes:
        folder: Of the model, as `places.locate_model` reads it.
        state: Folder of feedback and changed items.
        host: Address to listen on.
        port: To listen on; 0: any that is free.
        key: Without which only the page and `/health` answer; None: no key.
        watch: Seconds between two looks at the folder; 0: it is not watched.
        drain: Most seconds for requests in work when the service is stopped.
        limits: What it takes.
    """

    folder: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    watch: int = 2
    drain: int = 30
    limits: Limits = Limits()


LIMITS = tuple(field.name for field in fields(Limits))
KEYS = ("folder", "run", "output", "state", "host", "port", "key_file", "watch", "drain", *LIMITS)


def make_options(words: Mapping[str, str], folder: Path) -> ServeOptions:
    """The options of a command line.

    Args:
        words: Value by key, as typed.
        folder: What is served.

    Raises:
        ConfigError: A word is unknown or out of its range, the key is too short, or an address
            beyond this machine is to be served without one.
    """
    for name in words:
        if name not in KEYS:
            raise ConfigError(f"'{name}' is not understood.{nearest(name, KEYS)}")
    limits = Limits(**{name: _read_count(words, name, 1) for name in LIMITS if name in words})
    state = Path(words["state"]) if words.get("state") else choose_state(folder)
    if state.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"state={state} lies in the folder that is served; choose another place.")
    if state.exists() and not state.is_dir():
        raise ConfigError(
            f"state={state} is no folder; give the name of one, which is made if it is missing."
        )
    host = words.get("host", ServeOptions.host)
    key = read_key(words.get("key_file"))
    if host not in LOOPBACK and key is None:
        raise ConfigError(
            f"host={host} can be reached from other machines, which needs a key: set "
            f"{KEY_VARIABLE}, or give key_file=FILE."
        )
    return ServeOptions(
        folder,
        state,
        host,
        _read_count(words, "port", 0, 65_535, ServeOptions.port),
        key,
        _read_count(words, "watch", 0, default=ServeOptions.watch),
        _read_count(words, "drain", 0, default=ServeOptions.drain),
        limits,
    )


def read_key(file: str | None) -> str | None:
    """The API key, of a file or of the environment; None where there is none.

    It is no word of the command, because every user of a machine sees those.

    Raises:
        ConfigError: The file cannot be read, or the key is short or no plain text.
    """
    if file is None:
        key, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if key is None:
            return None
    else:
        where = file
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"key_file={file} cannot be read: {error}.") from None
    if len(key) < _SHORTEST_KEY or not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(
            f"{where}: a key has at least {_SHORTEST_KEY} ASCII characters without blanks, such as "
            "python -c 'import secrets; print(secrets.token_urlsafe())' prints."
        )
    return key


def _read_count(
    words: Mapping[str, str], name: str, least: int, most: int = 2**31 - 1, default: int = 0
) -> int:
    """A whole number of a word.

    Raises:
        ConfigError: It is none within the range.
    """
    if name not in words:
        return default
    number = parse_count(words[name], least, most)
    if number is None:
        top = f" to {most}" if most < 2**31 - 1 else ""
        raise ConfigError(f"{name} is '{words[name]}'; give a whole number from {least}{top}.")
    return number
