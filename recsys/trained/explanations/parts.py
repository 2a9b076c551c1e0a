"""An explanation: the parts of a score, and what they say in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recsys.printable import escape_line

if TYPE_CHECKING:
    import polars as pl

Method = Literal["exact", "gradients", "leave_one_out"]
"""How the parts of a score are computed."""

METHODS: dict[Method, str] = {
    "exact": "exact: the parts sum to the score",
    "gradients": "integrated gradients: the parts sum to the score less that of a baseline",
    "leave_one_out": "leave one out: by how much the score falls without the item",
}
"""What the parts mean."""

LEAST = 0.05
"""Share from which an item of a history is named in a line."""


@dataclass(frozen=True)
class HistoryPart:
    """What an item of the history adds to a score.

    Attributes:
        item: Its id.
        title: Its text.
        value: In the unit of the score; negative where it speaks against the item.
        share: The value over the sum of the magnitudes of all items of the history.
    """

    item: str
    title: str
    value: float
    share: float


@dataclass(frozen=True)
class ExplainedScore:
    """Why an item has its score.

    Attributes:
        query: Who or what is asked for: a user, ids of a history, or a text.
        item: The item's id.
        title: Its text.
        score: Its score, as `recommend` gives it.
        rank: Its rank among what the query may be recommended; None where it may not be, or where
            the catalog is not ranked as a whole.
        method: How the parts are computed.
        history: What the items of the history add, the largest magnitude first.
        rest: What belongs to no item of the history, by name.
        baseline: The score that the parts lead away from; None where they do not sum to anything.
        error: The sum of all parts less the change from the baseline to the score, over that
            change, 0 or more; None where they do not sum to anything.
    """

    query: str
    item: str
    title: str
    score: float
    rank: int | None
    method: Method
    history: tuple[HistoryPart, ...]
    rest: dict[str, float]
    baseline: float | None
    error: float | None

    @property
    def because(self) -> str:
        """What of the history speaks most for the item, in one line."""
        return write_because(self.history, tuple(self.rest))

    def to_frame(self) -> pl.DataFrame:
        """item, title, value and share: a row for each item of the history."""
        import polars as pl

        kinds = {"item": pl.String, "title": pl.String, "value": pl.Float64, "share": pl.Float64}
        columns = {name: [getattr(part, name) for part in self.history] for name in kinds}
        return pl.DataFrame(columns, schema=kinds)


def make_history_parts(
    items: Sequence[str], titles: Sequence[str], values: Sequence[float]
) -> tuple[HistoryPart, ...]:
    """Parts with their shares, the largest magnitude first; of equals, the first.

    Args:
        items: Ids.
        titles: Their texts.
        values: What they add.
    """
    total = sum(map(abs, values)) or 1.0
    parts = [
        HistoryPart(item, title, value, value / total)
        for item, title, value in zip(items, titles, values, strict=True)
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.value)))


def write_because(
    history: Sequence[HistoryPart], rest: Sequence[str] = (), most: int = 2, width: int = 40
) -> str:
    """What of a history speaks most for an item, in one line.

    Args:
        history: Its parts, the largest magnitude first.
        rest: Names of what else the score is made of.
        most: How many items are named at most.
        width: Characters that a title may take.

    Returns:
        A line such as `because you had "Alien (1979)" (41%)`, safe for a terminal and not escaped
        for a page; empty where nothing speaks for the item.
    """
    named = [part for part in history if part.share >= LEAST][:most]
    if named:
        titles = (
            f'"{cut_text(escape_line(part.title), width)}" ({100 * part.share:.0f}%)'
            for part in named
        )
        return f"because you had {' and '.join(titles)}"
    return "because it is popular" if "popularity" in rest else ""


def cut_text(text: str, width: int) -> str:
    """A text that is no longer than so many characters, with three dots where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 3)].rstrip() + "..."
