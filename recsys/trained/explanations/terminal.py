"""An explanation as lines for a terminal."""

from __future__ import annotations

from recsys.printable import escape_line
from recsys.trained.explanations.parts import METHODS, ExplainedScore, cut_text

_BAR = 20
"""Signs of the longest bar."""


def format_explanation(explanation: ExplainedScore, width: int = 100, most: int = 10) -> list[str]:
    """The lines, none longer than the terminal.

    Args:
        explanation: What is said.
        width: Of the terminal, in characters.
        most: How many items of the history are named.
    """
    lines = [f"{explanation.item}  {explanation.title}", _write_score(explanation)]
    if explanation.because:
        lines.append(explanation.because)
    lines += _write_history(explanation, width, most)
    lines += [f"{value:+9.4f}  {name}" for name, value in explanation.rest.items()]
    return [cut_text(escape_line(line), width) for line in lines]


def _write_score(explanation: ExplainedScore) -> str:
    """Score, rank and how the parts were computed."""
    rank = "" if explanation.rank is None else f", rank {explanation.rank}"
    baseline = f" of {explanation.baseline:.4f}" if explanation.baseline else ""
    method = METHODS[explanation.method] + baseline + _write_error(explanation.error)
    return f"score {explanation.score:.4f}{rank}; {method}"


def _write_error(error: float | None) -> str:
    """By how much the parts miss what they sum to."""
    return "" if error is None or error < 1e-4 else f" (but for {100 * error:.1f}%)"


def _write_history(explanation: ExplainedScore, width: int, most: int) -> list[str]:
    """A line an item of the history: value, share, bar, id and title."""
    largest = max((abs(part.share) for part in explanation.history), default=0.0) or 1.0
    bar = _BAR if width >= 80 else _BAR // 4
    lines = []
    for part in explanation.history[:most]:
        signs = ("#" if part.value >= 0 else "-") * round(bar * abs(part.share) / largest)
        lines.append(
            f"{part.value:+9.4f} {100 * part.share:+6.1f}%  {signs:<{bar}}  {part.item:<8}  "
            f"{part.title}"
        )
    left = len(explanation.history) - most
    return [*lines, f"and {left} more"] if left > 0 else lines
