"""What words add to a score, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recsys.printable import escape_line
from recsys.trained.explanations.parts import (
    KINDS,
    Reading,
    ReadText,
    WordPart,
    cut_text,
)

BAR = 20
"""Signs of the longest bar."""
_FOR, _AGAINST, _STRONG, _END = "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
_LEAST = 0.1
"""Of the strongest word: a weaker one has no colour, and one above half of it is bold."""


def format_readings(
    readings: Sequence[Reading], width: int, most: int, colour: bool
) -> Iterator[str]:
    """The lines, none longer than the terminal.

    Args:
        readings: What is said.
        width: Of the terminal, in characters.
        most: How many words of each are named, the strongest ones.
        colour: Whether texts are shown with their words coloured.
    """
    if not readings:
        yield cut_text("no word has a part in the score", width)
    for reading in readings:
        yield ""
        yield cut_text(escape_line(name_reading(reading)), width)
        yield cut_text(escape_line(describe_reading(reading)), width)
        if colour:
            for text in reading.texts:
                yield from _colour_text(text, _find_largest(reading), width)
        for line in (*_write_words(reading, width, most), *_write_rest(reading)):
            yield cut_text(escape_line(line), width)


def name_reading(reading: Reading) -> str:
    """Which texts are read."""
    items = [text.item for text in reading.texts if text.kind == "title"]
    kinds = list(dict.fromkeys(KINDS[text.kind] for text in reading.texts))
    if len(items) > 1:
        kinds[kinds.index(KINDS["title"])] = "titles of the history"
    names = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"
    which = f" {items[0]}" if len(items) == 1 and len(kinds) == 1 else ""
    return f"words of the {names}{which}"


def describe_reading(reading: Reading) -> str:
    """What the parts of the words mean."""
    if reading.method != "gradients":
        return f"exact: they sum to the score{write_error(reading.error)}"
    return (
        f"integrated gradients, {reading.points} points: they sum to the score less "
        f"{reading.baseline:.4f}, that of padding{write_error(reading.error)}"
    )


def write_error(error: float | None) -> str:
    """By how much the parts miss what they sum to."""
    return "" if error is None or error < 5e-4 else f" (but for {100 * error:.1f}%)"


def write_bar(value: float, share: float, largest: float, size: int) -> str:
    """A value, its share and a bar.

    Args:
        value: What is added.
        share: Of all.
        largest: Magnitude of the share of a whole bar.
        size: Signs of it.
    """
    signs = ("#" if value >= 0 else "-") * round(size * abs(share) / largest)
    return f"{value:+9.4f} {100 * share:+6.1f}%  {signs:<{size}}"


def list_strongest(reading: Reading) -> list[tuple[ReadText, WordPart]]:
    """All words with their texts, the largest magnitude first; of equals, the first."""
    words = [(text, word) for text in reading.texts for word in text.words]
    return sorted(words, key=lambda pair: -abs(pair[1].value))


def _find_largest(reading: Reading) -> float:
    """Magnitude of the largest share of a word."""
    return max((abs(word.share) for text in reading.texts for word in text.words), default=0) or 1.0


def _write_words(reading: Reading, width: int, most: int) -> Iterator[str]:
    """A line a word: value, share, bar, the word, and what it matches or whose it is."""
    largest, size = _find_largest(reading), BAR if width >= 80 else BAR // 4
    words = list_strongest(reading)
    for text, word in words[:most]:
        match = f" = {word.match}" if word.match else ""
        whose = ""
        if len(reading.texts) > 1:
            named = f" {text.item}" if text.kind == "title" else ""
            whose = f"  ({KINDS[text.kind]}{named})"
        yield f"{write_bar(word.value, word.share, largest, size)}  {word.text}{match}{whose}"
    if len(words) > most:
        yield f"and {len(words) - most} more"


def _write_rest(reading: Reading) -> Iterator[str]:
    """A line for each part that belongs to no word."""
    for name, value in reading.rest.items():
        yield f"{value:+9.4f}  {name}"


def _colour_text(text: ReadText, largest: float, width: int) -> Iterator[str]:
    """A text in lines, its words coloured by what they add."""
    line, used = "  ", 2
    for word in text.words:
        shown = cut_text(escape_line(word.text), max(1, width - 3))
        if used + len(shown) + 1 > width and used > 2:
            yield line
            line, used = "  ", 2
        line += _colour_word(shown, word, largest) + " "
        used += len(shown) + 1
    if used > 2:
        yield line


def _colour_word(shown: str, word: WordPart, largest: float) -> str:
    strength = abs(word.share) / largest
    if strength < _LEAST:
        return shown
    sign = _FOR if word.value > 0 else _AGAINST
    return f"{_STRONG if strength > 0.5 else ''}{sign}{shown}{_END}"
