r"""Texts of others, such as titles and names, made safe for where they are shown.

A title may hold whatever its maker put there: a control sequence would act on the terminal that
prints it, `<img onerror=...>` on the page that shows a report, a bar ends a cell of a Markdown
table, and `\input` reads a file into a document. Every output passes its texts through here, once.
"""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "\N{REPLACEMENT CHARACTER}"
"""Stands for a sign that would act on what shows it."""
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Signs that turn the direction of the text behind them, on and over its end."""
_ACTING = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories: control characters, halves of a character, ends of a line or paragraph."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def escape_line(text: str) -> str:
    """A text on one line in which nothing acts on a terminal.

    What separates words becomes a blank, and any other control character, a half of a character
    and a sign that turns the direction of a line becomes a sign that says so.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape_character, text))


def _escape_character(sign: str) -> str:
    if sign in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "
    if unicodedata.category(sign) in _ACTING or ord(sign) in _TURNING:
        return HIDDEN
    return sign


def cut_line(text: str, width: int) -> str:
    """A line that takes so many columns of a terminal at most, with three dots where it is cut.

    A sign of East Asian scripts takes two columns, a combining mark none.

    Args:
        text: As `escape_line` gives it.
        width: The columns.
    """
    if len(text) * (1 if text.isascii() else 2) <= width:
        return text
    room, used, kept = max(0, width - 3), 0, 0
    for place, sign in enumerate(text, 1):
        used += _measure(sign)
        if used <= room:
            kept = place
        if used > width:
            return text[:kept].rstrip() + "..."
    return text


def measure(text: str) -> int:
    """Columns of a terminal that a line takes."""
    return len(text) if text.isascii() else sum(map(_measure, text))


def _measure(sign: str) -> int:
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def escape_markdown(text: str) -> str:
    """A text on one line that Markdown shows as it is, in a cell of a table as well."""
    escaped = _MARKS.sub(lambda found: f"\\{found[0]}", escape_line(text))
    return _TAG.sub("&lt;", _ENTITY.sub("&amp;", escaped))


def escape_latex(text: str) -> str:
    """A text in which LaTeX finds no command, and the minus of a number is no hyphen."""
    parts = _MINUS.split(escape_line(text))
    out = "$-$".join("".join(_LATEX.get(sign, sign) for sign in part) for part in parts)
    # Behind the end of a row, these two would belong to that.
    return f"{{{out[0]}}}{out[1:]}" if out[:1] in ("[", "*") else out


def escape_html(text: str) -> str:
    """A text as HTML shows it, in an attribute as well."""
    import html  # its table of entities would be read at the start of every command

    return html.escape(escape_line(text))
