"""The words of a command, `key=value` each, and whole numbers in the words of a user.

What a value means is a matter of its key; here it is the text as it was typed.
"""

from __future__ import annotations

from collections.abc import Iterable

from recsys.errors import ConfigError

LARGEST = 2**31 - 1
"""What every library takes for a number of things; more is a slip of the hand."""


def partition_word(word: str) -> tuple[str, str] | None:
    """Key and value of a word; None where it does not have the form key=value."""
    key, equals, value = word.partition("=")
    return (key, value) if equals and key else None


def split_word(word: str, example: str = "optimizer.lr=3e-4") -> tuple[str, str]:
    """Key and value of a word.

    Args:
        word: As it was typed.
        example: A word of the command, for the message.

    Raises:
        ConfigError: The word does not have the form key=value.
    """
    parts = partition_word(word)
    if parts is None:
        raise ConfigError(f"'{word}' is not of the form key=value, as in {example}.")
    return parts


def split_words(words: Iterable[str], example: str = "optimizer.lr=3e-4") -> dict[str, str]:
    """The values of words by key; of a key that is there twice, the last value.

    Args:
        words: As they were typed.
        example: A word of the command, for the message.

    Raises:
        ConfigError: A word does not have the form key=value.
    """
    return dict(split_word(word, example) for word in words)


def split_single_words(words: Iterable[str], example: str) -> dict[str, str]:
    """The values of words by key, of which none is there twice.

    Args:
        words: As they were typed.
        example: A word of the command, for the message.

    Raises:
        ConfigError: A word does not have the form key=value, or a key is there twice.
    """
    values: dict[str, str] = {}
    for word in words:
        key, value = split_word(word, example)
        if key in values:
            raise ConfigError(f"{key} is there twice; keep one.")
        values[key] = value
    return values


def get_key(word: str) -> str:
    """What stands before the first equals sign of a word, or the whole word without one."""
    return word.partition("=")[0]


def find_value(words: Iterable[str], key: str) -> str | None:
    """The last value that words give a key; None where none has it."""
    value = None
    for word in words:
        parts = partition_word(word)
        if parts is not None and parts[0] == key:
            value = parts[1]
    return value


def drop_words(words: Iterable[str], keys: Iterable[str]) -> list[str]:
    """The words of other keys."""
    dropped = set(keys)
    return [word for word in words if get_key(word) not in dropped]


def parse_count(word: str, least: int = 0, most: int = LARGEST) -> int | None:
    """The whole number that a word is, or None.

    `str.isdigit` takes superscripts and digits of any script, and `int` thousands of digits.

    Args:
        word: As it was given.
        least: The smallest that is taken.
        most: The largest.
    """
    if not (word.isascii() and word.isdigit() and len(word) <= 19):
        return None
    return number if least <= (number := int(word)) <= most else None


def require_count(key: str, word: str, least: int) -> int:
    """The whole number that the value of a key is.

    Args:
        key: Of a command.
        word: Its value, as it was given.
        least: The smallest that is taken; the largest is `LARGEST`.

    Raises:
        ConfigError: It is none.
    """
    number = parse_count(word, least)
    if number is None:
        too_large = word.isascii() and word.isdigit() and parse_count(word) is None
        top = f" to {LARGEST}" if too_large else ""
        raise ConfigError(f"{key} is '{word}'; give a whole number from {least}{top}.")
    return number
