"""An explanation as lines for a terminal."""

from __future__ import annotations

from recsys.printable import escape_line
from recsys.trained.explanations.parts import METHODS, ExplainedScore, cut_text
from recsys.trained.explanations.words.lines import BAR, format_readings, write_bar, write_error


def format_explanation(
    explanation: ExplainedScore, width: int = 100, most: int = 10, colour: bool = False
) -> list[str]:
    """The lines, none longer than the terminal.

    Args:
        explanation: What is said.
        width: Of the terminal, in characters.
        most: How many items of the history, and how many words that are read together, are named.
        colour: Whether texts are shown with their words coloured.
    """
    lines = [f"{explanation.item}  {explanation.title}", _write_score(explanation)]
    if explanation.because:
        lines.append(explanation.because)
    lines += _write_history(explanation, width, most)
    lines += [f"{value:+9.4f}  {name}" for name, value in explanation.rest.items()]
    shown = [cut_text(escape_line(line), width) for line in lines]
    if explanation.readings is not None:
        shown += format_readings(explanation.readings, width, most, colour)
    return shown


def _write_score(explanation: ExplainedScore) -> str:
    """Score, rank and how the parts were computed."""
    rank = "" if explanation.rank is None else f", rank {explanation.rank}"
    baseline = f" of {explanation.baseline:.4f}" if explanation.baseline else ""
    method = METHODS[explanation.method] + baseline + write_error(explanation.error)
    return f"score {explanation.score:.4f}{rank}; {method}"


def _write_history(explanation: ExplainedScore, width: int, most: int) -> list[str]:
    """A line an item of the history: value, share, bar, id and title."""
    largest = max((abs(part.share) for part in explanation.history), default=0.0) or 1.0
    bar = BAR if width >= 80 else BAR // 4
    lines = []
    for part in explanation.history[:most]:
        signs = write_bar(part.value, part.share, largest, bar)
        name = f"disliked: {part.title}" if part.disliked else part.title
        lines.append(f"{signs}  {part.item:<8}  {name}")
    left = len(explanation.history) - most
    return [*lines, f"and {left} more"] if left > 0 else lines
