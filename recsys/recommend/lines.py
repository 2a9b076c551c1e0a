"""Recommendations as lines of a terminal, or of a file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recsys.printable import cut_line, escape_line
from recsys.trained.queries import BECAUSE

if TYPE_CHECKING:
    import polars as pl

_LEAST = 40
"""Characters of a line: in a narrower terminal it is broken rather than cut."""
_COLUMN = 30
"""Characters that a further column may take in a terminal."""
_TITLE = 20
"""Characters of a title that further columns leave."""


def get_width() -> int | None:
    """How long a line may be; None where the output is no terminal, whose lines are whole."""
    if not sys.stdout.isatty():
        return None
    return max(_LEAST, shutil.get_terminal_size((100, 24)).columns)


def format_rows(rows: pl.DataFrame, columns: Sequence[str], width: int | None) -> list[str]:
    """A line an item: rank, score, id and title, then further columns.

    What speaks for an item stands below it in a terminal, and else at the end of its line.

    Args:
        rows: As `recommend` gives them.
        columns: Names of the further columns.
        width: How long a line may be; what is cut ends with three dots. None: any length.
    """
    lines = []
    for row in rows.iter_rows(named=True):
        head = escape_line(f"{row['rank']:>3}  {row['score']:8.4f}  {row['item']:<12}  ")
        more = [f"{name}: {_write_value(row[name])}" for name in columns]
        why = str(row.get(BECAUSE) or "")
        if width is None and why:
            more.append(why)
        lines.append(join_line(head, escape_line(row["title"]), more, width))
        if width is not None and why:
            lines.append(cut_line(f"{'':5}{why}", width))
    return lines


def join_line(head: str, title: str, more: Sequence[str], width: int | None) -> str:
    """One line; the columns are cut before the title has too little room left.

    Args:
        head: What stands before the title.
        title: On one line.
        more: Columns behind it.
        width: How long the line may be; None: any length.
    """
    if width is None:
        return "  ".join([head + title, *more])
    own = [cut_line(each, _COLUMN) for each in more]
    room = width - len(head) - sum(len(each) + 2 for each in own)
    line = "  ".join([head + cut_line(title, max(_TITLE, room)), *own])
    return cut_line(line, width)


def _write_value(value: object) -> str:
    """A value on one line; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(escape_line(str(each)) for each in value)
    return escape_line(str(value))
