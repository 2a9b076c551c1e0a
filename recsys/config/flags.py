"""The words and the flags of a command line: every command asks for help in the same way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import ConfigError, nearest

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


def _explain_flag(name: str, value: str, known: Sequence[str]) -> str:
    """What is wrong with a word that begins with a dash."""
    if not value:
        return f"{name} is not a flag.{nearest(name, known)}"
    if name in known:
        return f"{name}{value}: {name} takes no value; leave out {value}."
    return f"{name}{value}: a key has no dashes; write {name.lstrip('-')}{value}."
