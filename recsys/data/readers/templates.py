"""Texts of items and users: fields of any kind as text, and templates over their columns."""

from __future__ import annotations

import difflib
import html
import re
import string
from collections.abc import Iterator, Sequence

import polars as pl

from recsys.errors import ConfigError

# Stands for a missing value until its surroundings are tidied; no text file holds it.
_GAP = "\x00"
# Around each value where one is missing: what is tidied is the template's, never a value's own.
_VALUE = "\x01"
_DASH = "[-\u2013\u2014\u00b7\u2022]"
# Repeated until nothing changes, as each may make room for another.
_TIDY = (
    (re.compile(rf"{_GAP}[ \t]*{_GAP}"), _GAP),
    (re.compile(rf"[ \t]*[,;|/][ \t]*{_GAP}"), ""),  # "24, <gap>, clerk": the comma before goes
    (re.compile(rf"([(\[])\s*{_GAP}\s*[,;|/]\s*"), r"\1"),  # "(<gap>, b)": the one after it
    (re.compile(rf"\(\s*{_GAP}\s*\)|\[\s*{_GAP}\s*\]"), _GAP),
    # A stop or a dash goes where nothing follows it but the next one: "Car. <gap>. <gap>", not that
    # of "Car. <gap> Red".
    (re.compile(rf"(?:[ \t]*\.|[ \t]+{_DASH})[ \t]*{_GAP}(?=[ \t]*(?:\.|{_DASH}[ \t]|$))"), ""),
    (re.compile(rf"^\s*{_GAP}[ \t]*(?:[,;|/.]|{_DASH}(?=\s))?\s*"), ""),
)
_MARKS = re.compile(f"[{_GAP}{_VALUE}]")
_BEFORE_GAP = re.compile(rf"[ \t]*{_GAP}")
_BLANKS = re.compile(r"[ \t]+")
# Comments and scripts with what is in them, then single tags; not "3 < 4 > 2".
_MARKUP = re.compile(
    r"<!--.*?-->|<(style|script)\b.*?</\1\s*>|</?[a-z!][^<>]*>", re.DOTALL | re.IGNORECASE
)
_BLANK_BEFORE = re.compile(r"\s+([,.;])")
_EMPTY_PARTS = re.compile(r",(\s*,)+")


def join_values(value: object, between: str = ", ", once: bool = True) -> str | None:
    """A value as text, nothing for nothing.

    Args:
        value: A text, a number, or lists of them of any depth.
        between: What stands between the parts of lists.
        once: Whether a part that comes again is left out.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        return (
            between.join(dict.fromkeys(_iter_leaves(value)) if once else _iter_leaves(value))
            or None
        )
    return str(value)


def strip_markup(value: object, between: str = ", ", once: bool = True) -> str | None:
    """A value as `join_values` gives it, without markup and the blanks and commas it leaves."""
    text = join_values(value, between, once)
    if text is None or "<" not in text:
        return text
    bare = _MARKUP.sub(" ", text)
    if bare == text:
        return text
    bare = _EMPTY_PARTS.sub(",", _BLANK_BEFORE.sub(r"\1", bare)).rstrip()
    return bare.removesuffix(",") or None


def _iter_leaves(value: object) -> Iterator[str]:
    """The texts in lists of any depth."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _iter_leaves(each)
    elif isinstance(value, dict):
        yield from (f"{name}: {each}" for name, each in value.items())
    elif value is not None and value != "":
        yield str(value)


def _parse_template(template: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """Literal text, the name after it, its format and its conversion, in order.

    Raises:
        ConfigError: The template is malformed.
    """
    try:
        return list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"The text template '{template}' cannot be read: {error}.") from error


def suggest_column(name: str, known: Sequence[str]) -> str:
    """A clause with the column that is meant, where one is alike, and all that there are."""
    plain = {column.casefold(): column for column in known}
    asked = name.casefold()
    near = difflib.get_close_matches(asked, plain, n=1, cutoff=0.75)
    if not near and len(asked) > 2:
        near = [column for column in plain if asked in column]
    hint = f"; did you mean '{plain[near[0]]}'?" if near else "."
    return f"{hint} Known columns: {', '.join(known) or 'none'}."


def _split_template(template: str, known: list[str]) -> list[tuple[str, str | None]]:
    """Pairs of literal text and the column after it (None at the end)."""
    out: list[tuple[str, str | None]] = []
    for literal, name, spec, conversion in _parse_template(template):
        if spec or conversion:
            raise ConfigError(
                f"The text template '{template}' has a format after '{name}'; give the name only."
            )
        if name is not None and name not in known:
            raise ConfigError(
                f"The text template '{template}' names no column '{name}' of the table"
                f"{suggest_column(name, known)}"
            )
        out.append((literal, name))
    if template.strip() and not any(name for _, name in out):
        bare = template.strip()
        example = bare if bare in known else "title"
        raise ConfigError(
            f"The text template '{template}' names no column; write '{{{example}}}'. "
            f"Known columns: {', '.join(known) or 'none'}."
        )
    return out


def _clean_column(column: pl.Series) -> list[str]:
    """A column as clean text, with the gap mark for missing and blank values."""
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)
    values = (_MARKS.sub("", html.unescape(v or "")) for v in column.cast(pl.String).to_list())
    return [" ".join(value.split()) or _GAP for value in values]


def _tidy(text: str) -> str:
    """A filled template without its gaps and what they leave."""
    before = None
    while _GAP in text and before != text:
        before = text
        for pattern, instead in _TIDY:
            text = pattern.sub(instead, text)
    text = _BEFORE_GAP.sub("", text).replace(_VALUE, "")
    return _BLANKS.sub(" ", text).strip()


def fill_template(frame: pl.DataFrame, template: str, barred: Sequence[str] = ()) -> pl.Series:
    """Fills a template such as "{title} ({year}). {genres}" for each row.

    HTML entities become characters. A missing value takes its brackets, its comma, its blanks, and
    its stop where no text is left that it would end, with it; runs of blanks become one.

    Args:
        frame: N rows with the columns that the template names.
        template: Text with column names in braces; doubled braces are literal ones.
        barred: Columns that hold kinds with bars between them (a|b), read as "a, b".

    Returns:
        Series "text" of N strings, empty where nothing is known.

    Raises:
        ConfigError: The template is malformed, or names no column, or one that is not there.
    """
    parts = _split_template(template, frame.columns)
    frame = frame.with_columns(
        pl.col(name).str.replace_all("|", ", ", literal=True)
        for name in barred
        if name in frame.columns
    )
    columns = {name: _clean_column(frame[name]) for _, name in parts if name is not None}
    texts = []
    for row in range(frame.height):
        values = [columns[name][row] if name is not None else "" for _, name in parts]
        if _GAP in values:
            values = [v if v in ("", _GAP) else f"{_VALUE}{v}{_VALUE}" for v in values]
        text = "".join(literal + value for (literal, _), value in zip(parts, values, strict=True))
        texts.append(_tidy(text))
    return pl.Series("text", texts, dtype=pl.String)


def list_template_columns(template: str) -> list[str]:
    """The columns that a template names, each once.

    Raises:
        ConfigError: The template is malformed.
    """
    return list(
        dict.fromkeys(name for _, name, _, _ in _parse_template(template) if name is not None)
    )
