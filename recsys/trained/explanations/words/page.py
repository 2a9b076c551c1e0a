"""What words add to a score, as sections of a page: the texts shaded, and the strongest words."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.printable import escape_html
from recsys.trained.explanations.parts import KINDS, Reading, ReadText, WordPart
from recsys.trained.explanations.words.lines import describe_reading, list_strongest, name_reading

MOST = 10
"""Words of a table."""
APART = "Each section is the whole score, seen from other texts: the sections do not add up."
_SHADE = 0.7
"""Opacity behind the strongest word: what stands on it can still be read."""

STYLE = """
.why .read { line-height: 1.9; margin: 0 0 .5rem }
.why .word { border-radius: .2rem; padding: .1rem .15rem }
.why .word.for { background: rgba(var(--for-shade), var(--a)) }
.why .word.against { background: rgba(var(--against-shade), var(--a));
  text-decoration: underline dotted }
"""


def render_readings(readings: Sequence[Reading] | None) -> str:
    """A section for each reading; every text in it is escaped."""
    if readings is None:
        return ""
    if not readings:
        return '<h2>Words</h2><p class="note">No word has a part in the score.</p>'
    note = (
        '<p class="note">Green speaks for the item; orange, underlined with dots, against it.'
        f"{' ' + APART if len(readings) > 1 else ''}</p>"
    )
    return "".join(map(_render_reading, readings)) + note


def render_table(what: str, rows: Sequence[str]) -> str:
    """A table of rows that `render_row` makes.

    Args:
        what: Whose values they are.
        rows: They.
    """
    head = (
        f'<th scope="col">{what}</th><th scope="col" class="number">Share</th>'
        '<th scope="col" class="number">Adds</th><th scope="col"></th>'
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def render_row(name: str, value: float, share: float, largest: float) -> str:
    """A row with a bar.

    Args:
        name: Whose value it is, escaped.
        value: What is added.
        share: Of all.
        largest: Magnitude of the share of a whole bar.
    """
    return (
        f'<tr><td dir="auto">{name}</td><td class="number">{100 * share:+.1f}%</td>'
        f'<td class="number">{value:+.4f}</td><td class="bar">'
        f'<div class="{_name_sign(value)}" '
        f'style="width:{100 * abs(share) / largest:.1f}%"></div></td></tr>'
    )


def _render_reading(reading: Reading) -> str:
    """The texts, the strongest words, and what belongs to none."""
    what, how = name_reading(reading), describe_reading(reading)
    words = list_strongest(reading)
    largest = max((abs(word.share) for _, word in words), default=0.0) or 1.0
    several = len(reading.texts) > 1
    texts = "".join(_render_text(text, largest, several) for text in reading.texts)
    rows = [
        render_row(_name_word(word), word.value, word.share, largest) for _, word in words[:MOST]
    ]
    rest = "".join(
        f'<p class="note">{escape_html(name)}: {value:+.4f}</p>'
        for name, value in reading.rest.items()
    )
    return (
        f"<h2>{escape_html(what[:1].upper() + what[1:])}</h2>"
        f'<p class="note">{escape_html(how[:1].upper() + how[1:])}.</p>'
        f"{texts}{render_table('Word', rows)}{rest}"
    )


def _render_text(text: ReadText, largest: float, named: bool) -> str:
    """A text with its words shaded, behind its name if asked for; what is not read is left out."""
    parts, end = [], text.words[0].start if text.words else 0
    for word in text.words:
        parts += [escape_html(text.text[end : word.start]), _render_word(word, largest)]
        end = word.end
    item = f" {text.item}" if text.kind == "title" else ""
    cut = "" if not text.text[end:].strip() else " &hellip;"
    name = f'<p class="note">{escape_html(KINDS[text.kind] + item)}</p>' if named else ""
    return f'{name}<p class="read" dir="auto">{"".join(parts)}{cut}</p>'


def _render_word(word: WordPart, largest: float) -> str:
    shade = _SHADE * abs(word.share) / largest
    tip = f"{word.value:+.4f}" + (f" = {word.match}" if word.match else "")
    return (
        f'<span class="word {_name_sign(word.value)}" style="--a:{shade:.2f}" '
        f'title="{escape_html(tip)}">{escape_html(word.text)}</span>'
    )


def _name_word(word: WordPart) -> str:
    match = f" = {word.match}" if word.match else ""
    return escape_html(word.text + match)


def _name_sign(value: float) -> str:
    """The class of what speaks for an item, or against it."""
    return "for" if value >= 0 else "against"
