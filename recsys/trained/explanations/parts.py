"""An explanation: the parts of a score, and what they say in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from recsys.printable import escape_line
from recsys.types import Witnesses

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

TITLES = 3
"""How many titles of a history have their words read, unless more are asked for."""

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
        disliked: Whether the model reads it as what the user did not like, and nowhere else.
    """

    item: str
    title: str
    value: float
    share: float
    disliked: bool = False


TextKind = Literal["item", "title", "profile", "context", "text"]
"""What a text is to a score."""

KINDS: dict[TextKind, str] = {
    "item": "title of the item",
    "title": "title of the history",
    "profile": "profile of the user",
    "context": "context",
    "text": "text that asks",
}
"""What each kind is called."""


@dataclass(frozen=True)
class WordPart:
    """What a word of a text adds to a score.

    Attributes:
        text: The word, as it stands in the text.
        start: Its first character in the text.
        end: The one behind its last.
        value: In the unit of the score; negative where it speaks against the item.
        share: The value over the sum of the magnitudes of all words that are read together.
        match: What it finds its like in, of late interaction; else empty.
    """

    text: str
    start: int
    end: int
    value: float
    share: float
    match: str = ""


@dataclass(frozen=True)
class ReadText:
    """A text that a score reads.

    Attributes:
        kind: What it is to the score.
        item: Id of the item whose text it is, else None.
        text: The whole text.
        words: Those that are read, in their order; a text that is too long is cut at the end.
    """

    kind: TextKind
    item: str | None
    text: str
    words: tuple[WordPart, ...]

    @property
    def value(self) -> float:
        """What all of its words add."""
        return sum(word.value for word in self.words)


@dataclass(frozen=True)
class Reading:
    """What the words of some texts add to a score, while all else that it is made of stays.

    Each reading is of the whole score: what different ones say does not add up.

    Attributes:
        texts: The texts, which are read together.
        method: How the parts are computed: exact, or gradients.
        score: The score.
        baseline: What it is without any of these words, and without the rest.
        rest: What belongs to no word, by name.
        error: By how much the words and the rest miss the change from the baseline to the score,
            over the change that the words make, 0 or more.
        points: Points of the path of the gradients; 0 where the parts are exact.
    """

    texts: tuple[ReadText, ...]
    method: Method
    score: float
    baseline: float
    rest: dict[str, float]
    error: float
    points: int


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
        readings: What the words of the texts add; None where that was not asked for, and empty
            where the score reads none.
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
    readings: tuple[Reading, ...] | None = None

    @property
    def because(self) -> str:
        """What of the history speaks most for the item, in one line."""
        return write_because(self.history, tuple(self.rest))

    def to_frame(self) -> pl.DataFrame:
        """item, title, value, share and disliked: a row for each item of the history."""
        import polars as pl

        kinds = {
            "item": pl.String,
            "title": pl.String,
            "value": pl.Float64,
            "share": pl.Float64,
            "disliked": pl.Boolean,
        }
        columns = {name: [getattr(part, name) for part in self.history] for name in kinds}
        return pl.DataFrame(columns, schema=kinds)

    def to_word_frame(self) -> pl.DataFrame:
        """A row for each word that was read, by reading and in the order of its text.

        reading (a number from 0), kind, item, word, start, end, value, share and match, as of
        `ReadText` and `WordPart`; no row where words were not asked for.
        """
        import polars as pl

        schema = {
            "reading": pl.Int64,
            "kind": pl.String,
            "item": pl.String,
            "word": pl.String,
            "start": pl.Int64,
            "end": pl.Int64,
            "value": pl.Float64,
            "share": pl.Float64,
            "match": pl.String,
        }
        rows = [
            (number, text.kind, text.item, *vars(word).values())
            for number, reading in enumerate(self.readings or ())
            for text in reading.texts
            for word in text.words
        ]
        return pl.DataFrame(rows, schema=schema, orient="row")


def make_history_parts(
    items: Sequence[str],
    titles: Sequence[str],
    values: Sequence[float],
    disliked: Sequence[bool] | None = None,
) -> tuple[HistoryPart, ...]:
    """Parts with their shares, the largest magnitude first; of equals, the first.

    Args:
        items: Ids.
        titles: Their texts.
        values: What they add.
        disliked: Whether each is read as disliked; None: none is.
    """
    total = sum(map(abs, values)) or 1.0
    signs = [False] * len(values) if disliked is None else disliked
    parts = [
        HistoryPart(item, title, value, value / total, sign)
        for item, title, value, sign in zip(items, titles, values, signs, strict=True)
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
        for a page; empty where nothing speaks for the item. What was disliked and yet speaks for
        it is called so: `because you disliked "Cats (2019)" (30%)`.
    """
    named = [part for part in history if part.share >= LEAST][:most]
    said = []
    for verb, disliked in (("had", False), ("disliked", True)):
        titles = [
            f'"{cut_text(escape_line(part.title), width)}" ({100 * part.share:.0f}%)'
            for part in named
            if part.disliked == disliked
        ]
        if titles:
            said.append(f"{verb} {' and '.join(titles)}")
    if said:
        return f"because you {' and '.join(said)}"
    return "because it is popular" if "popularity" in rest else ""


def write_witnesses(others: Witnesses, texts: Sequence[str], most: int = 2, width: int = 40) -> str:
    """Whose choices speak for an item, in one line.

    Args:
        others: Who; no text of theirs is in it.
        texts: Of the items.
        most: How many items are named at most.
        width: Characters that a title may take.

    Returns:
        A line such as `because 12 of 200 similar queries led to it, and to "Alien (1979)"`.
    """
    if not others.count:
        return "because it is popular"
    line = f"because {others.count} of {others.among} similar queries led to it"
    named = [f'"{cut_text(escape_line(texts[row]), width)}"' for row in others.items[:most]]
    return f"{line}, and to {' and '.join(named)}" if named else line


def cut_text(text: str, width: int) -> str:
    """A text that is no longer than so many characters, with three dots where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 3)].rstrip() + "..."
