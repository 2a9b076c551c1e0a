"""Whole numbers in words of a user: of a command line, an environment variable or a name."""

from __future__ import annotations

LARGEST = 2**31 - 1
"""What every library takes for a number of things; more is a slip of the hand."""


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
