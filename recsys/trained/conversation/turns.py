"""What a turn of a conversation gives back: a list, chips and sentences, also as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recsys.errors import DataError
from recsys.trained.conversation.critiques import State


@dataclass(frozen=True)
class ListedItem:
    """An item of a list.

    Attributes:
        number: By which it is spoken of, from 1.
        item: Its id.
        text: Its text.
        score: The weighted sum of what was said.
        parts: What each part adds to the score, by its kind (`scoring.WEIGHTS`).
        facts: Column and value, for filters that its text does not show.
    """

    number: int
    item: str
    text: str
    score: float
    parts: tuple[tuple[str, float], ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Chip:
    """Something that holds, and can be taken back.

    Attributes:
        letter: By which it is taken back: a, b, ...
        kind: Of the critique.
        text: What it says.
    """

    letter: str
    kind: str
    text: str


@dataclass(frozen=True)
class Turn:
    """What a line led to.

    Attributes:
        number: Of the turn, from 1.
        said: The line.
        message: A sentence on what happened, or why nothing did; may be empty.
        lines: What was asked for: an explanation, the columns of an item, help.
        items: The list, or its next page; empty where it is as it was.
        chips: What holds now.
        fitting: How many items fit.
        state: Where the conversation is now.
        undone: Whether it went back to an earlier state.
        ended: Whether it was ended.
    """

    number: int
    said: str
    message: str
    lines: tuple[str, ...]
    items: tuple[ListedItem, ...]
    chips: tuple[Chip, ...]
    fitting: int
    state: State
    undone: bool = False
    ended: bool = False

    def to_json(self) -> dict[str, Any]:
        """It as JSON has it."""
        out = {k: v for k, v in vars(self).items() if k not in ("items", "chips", "state")}
        out["lines"] = list(self.lines)
        out["items"] = [asdict(each) for each in self.items]
        out["chips"] = [asdict(each) for each in self.chips]
        return {**out, "state": self.state.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Turn:
        """What `to_json` gave.

        Raises:
            DataError: It is nothing of that kind.
        """
        state = State.from_json(value.get("state"))
        given = {**value, "lines": tuple(value.get("lines", ())), "state": state}
        try:
            given["items"] = tuple(
                ListedItem(**{**each, **{n: _freeze(each[n]) for n in ("parts", "facts")}})
                for each in value["items"]
            )
            given["chips"] = tuple(Chip(**each) for each in value["chips"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise DataError(f"it is no turn of a conversation ({type(error).__name__}).") from None


def _freeze(pairs: Iterable[Iterable[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(map(tuple, pairs))


def name_letter(place: int) -> str:
    """The letter of a chip: a to z, then aa, ab, ..."""
    out = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        out = chr(ord("a") + rest) + out
    return out
