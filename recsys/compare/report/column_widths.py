"""Tables as wide as the terminal: whole numbers, words cut between words, columns in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 2
"""Blanks between two columns."""
NAME = 10
"""Letters that the first column keeps at least where that saves a second block."""
WORDS = 24
"""Letters that a column of words keeps at least, where it has as many."""


@dataclass
class TableColumn:
    """A column of a table as it is laid out.

    Attributes:
        at: Its number.
        width: Cells of the terminal that it takes.
        most: Cells at which nothing in it is cut.
    """

    at: int
    width: int
    most: int


def fit_columns(rows: Sequence[Sequence[str]], words: int, room: int) -> list[list[TableColumn]]:
    """Lays the columns of a table out in as many blocks as the terminal's width asks for.

    A column of numbers is never narrower than its numbers; its head may be cut between words. The
    first column, which says what a row is, stands in each block.

    Args:
        rows: The head, then all rows.
        words: How many columns from the left hold words.
        room: Width of the terminal.
    """
    first, *others = (_make_column(rows, at, at < words) for at in range(len(rows[0])))
    first.width = min(first.most, max(first.width, room // 3))
    over = first.width + sum(GAP + column.width for column in others) - room
    if 0 < over <= first.width - max(NAME, _measure_longest_word(row[0] for row in rows)):
        first.width -= over  # a name on two lines rather than a table in two blocks
    blocks: list[list[TableColumn]] = []
    for column in others:
        if not blocks or _measure_block(blocks[-1]) + GAP + column.width > room:
            blocks.append([TableColumn(0, first.width, first.most)])
        blocks[-1].append(column)
    for block in blocks or [[first]]:
        _widen(block, room)
    return blocks or [[first]]


def _make_column(rows: Sequence[Sequence[str]], at: int, words: bool) -> TableColumn:
    """A column at its least width."""
    head, *cells = (row[at] for row in rows)
    most = max(map(cell_len, (head, *cells)))
    widest = max(map(cell_len, cells), default=0)
    least = max(min(widest, WORDS) if words else widest, max(map(cell_len, head.split() or [""])))
    return TableColumn(at, least, most)


def _measure_longest_word(cells: Iterable[str]) -> int:
    return max((cell_len(word) for cell in cells for word in cell.split()), default=0)


def _measure_block(block: Sequence[TableColumn]) -> int:
    return sum(column.width for column in block) + GAP * (len(block) - 1)


def _widen(block: Sequence[TableColumn], room: int) -> None:
    """Gives what is left of the room to the columns that are cut most."""
    for _ in range(room - _measure_block(block)):
        column = max(block, key=lambda each: each.most - each.width)
        if column.most <= column.width:
            return
        column.width += 1
