"""The words and the flags of a command line: every command asks for help in the same way."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from recsys.config.ranges import TEMPLATE, describe_quoting, shorten
from recsys.config.yaml_file import Node, parse_typed_word, unwrap
from recsys.errors import ConfigError, RecsysError, nearest
from recsys.words import LARGEST, split_word

HELP = "--help"
_SHORT = "-h"


@dataclass(frozen=True)
class CommandLine:
    """What was typed after a command's name.

    Attributes:
        words: All but the flags, in order.
        flags: The command's own flags that are there.
        help: Whether help is asked for, of the words if there are any; nothing at all asks too.
    """

    words: tuple[str, ...]
    flags: frozenset[str]
    help: bool


def split_flags(argv: Sequence[str], flags: Sequence[str] = ()) -> CommandLine:
    """Tells flags from the other words.

    Args:
        argv: What was typed.
        flags: The command's own flags, beside `--help`.

    Raises:
        ConfigError: A flag is unknown; the sentence names the nearest one, or the word that a key
            is set with.
    """
    known = (HELP, *flags)
    words: list[str] = []
    given: set[str] = set()
    for word in argv:
        name, equals, value = word.partition("=")
        if word in (HELP, _SHORT):
            given.add(HELP)
        elif name == HELP and value:  # --help=all
            given.add(HELP)
            words.append(value)
        elif word in flags:
            given.add(word)
        elif re.match(r"--?[A-Za-z]|--", word) and not Path(word).exists():
            raise ConfigError(_explain_flag(name, equals + value, known))
        else:
            words.append(word)
    return CommandLine(tuple(words), frozenset(given - {HELP}), not argv or HELP in given)


def run_words(
    argv: Sequence[str],
    describe: Callable[[Sequence[str]], str],
    run: Callable[[Sequence[str]], Iterable[str] | None],
) -> int:
    """A command that has no flags of its own: its help, or what it does, a line at a time.

    Args:
        argv: What was typed.
        describe: The help on the words beside `--help`.
        run: Does what the words say; lines are printed as they come.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    try:
        line = split_flags(argv)
        if line.help:
            print(describe(line.words))
            return 0
        for row in run(line.words) or ():
            print(row)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def _explain_flag(name: str, value: str, known: Sequence[str]) -> str:
    """What is wrong with a word that begins with a dash."""
    if not value:
        return f"{name} is not a flag.{nearest(name, known)}"
    if name in known:
        return f"{name}{value}: {name} takes no value; leave out {value}."
    return f"{name}{value}: a key has no dashes; write {name.lstrip('-')}{value}."


class ReplacingNode(dict[str, Any]):
    """An axis node that replaces what lower layers said, because its name was given alone."""


def parse_words(argv: Sequence[str], axes: Collection[str]) -> Node:
    """Reads `key=value` words into a nested dict; a scalar over an axis is its name.

    What was typed stays beside each number and truth value.

    Args:
        argv: The words.
        axes: The axes.

    Raises:
        ConfigError: A word without `=`, or a value that is not YAML.
    """
    out: Node = {}
    for word in argv:
        key, text = split_word(word)
        value = parse_value(key, text)
        for name in reversed(key.split(".")):
            value = {name: value}
        _merge_word(out, cast(Node, value), "", axes)
    return out


def parse_value(key: str, text: str) -> object:
    """The value of a word, with what was typed beside a number or a truth value.

    Raises:
        ConfigError: It is no YAML, or a number of more digits than Python reads.
    """
    try:
        return parse_typed_word(text)
    except ConfigError as error:
        if TEMPLATE.match(text):
            raise ConfigError(f"{key}: {describe_quoting(key, text)}.") from None
        if text.isdigit():
            raise ConfigError(f"{key} is {shorten(text)}; set it to {LARGEST} or less.") from None
        raise ConfigError(f"{key}: the value cannot be read as YAML: {error}") from None


def _merge_word(into: Node, new: Node, prefix: str, axes: Collection[str]) -> None:
    """Merges one word into the others; `tuning=x` and `tuning.rank=4` may come in any order.

    A bare name makes the node fresh, with what other words of the command line set in it.
    """
    for key, value in new.items():
        path = f"{prefix}{key}"
        if path in axes and not isinstance(value, dict):
            value = ReplacingNode(name=unwrap(value))
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            if isinstance(value, ReplacingNode):
                into[key] = ReplacingNode(into[key])
            _merge_word(into[key], value, f"{path}.", axes)
        else:
            into[key] = value
            if isinstance(value, dict):
                into[key] = type(value)()
                _merge_word(into[key], value, f"{path}.", axes)
