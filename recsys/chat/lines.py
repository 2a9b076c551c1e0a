"""A turn of a conversation as lines of a terminal, or of a file."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.printable import cut_line, escape_line, measure
from recsys.recommend.lines import join_line
from recsys.trained.conversation.turns import Chip, Turn

_MOST = 12
"""Chips that are shown below a list; the latest ones."""


def format_turn(turn: Turn, width: int | None, size: int) -> list[str]:
    """The lines: what was asked for, the sentence, the list, the chips.

    Args:
        turn: Of a conversation.
        width: How long a line may be; what is cut ends with three dots. None: any length.
        size: Of the catalog.
    """
    lines = [escape_line(line) for line in turn.lines]
    if turn.message:
        lines += wrap(escape_line(turn.message).split(" "), width)
    for each in turn.items:
        facts = [f"{name}: {value}" for name, value in each.facts]
        lines.append(join_line(f"{each.number:>3}  ", escape_line(each.text), facts, width))
    empty = turn.chips and not turn.state.listed and not turn.lines
    if turn.items or empty:
        lines += format_chips(turn.chips, turn.fitting, width, size)
    return [line if width is None else cut_line(line, width) for line in lines]


def format_chips(chips: Sequence[Chip], fitting: int, width: int | None, size: int) -> list[str]:
    """What holds, on as few lines as there is room for.

    Args:
        chips: All of them.
        fitting: How many items fit.
        width: As in `format_turn`.
        size: Of the catalog.
    """
    pieces = [f"[{chip.letter}] {chip.text}" for chip in chips[-_MOST:]]
    left = len(chips) - len(pieces)
    if left:
        pieces.insert(0, f"{left} more (chips)")
    pieces.append(f"{fitting:,} of {size:,} fit")
    return wrap(pieces, width, "     ", "  ")


def wrap(
    pieces: Sequence[str], width: int | None, indent: str = "", between: str = " "
) -> list[str]:
    """Pieces on lines that are no wider than the terminal; none is broken.

    Args:
        pieces: In their order.
        width: Columns of a line; None: all stand on one.
        indent: Before each line.
        between: Stands between two pieces.
    """
    lines: list[str] = []
    for piece in pieces:
        longer = f"{lines[-1]}{between}{piece}" if lines else ""
        if lines and (width is None or measure(longer) <= width):
            lines[-1] = longer
        else:
            lines.append(indent + piece)
    return lines
