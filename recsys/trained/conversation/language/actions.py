"""What a line of a conversation asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys.trained.conversation.critiques import Avoided, Bound, HasValue, Said

Opinion = Literal["liked", "disliked", "seen"]
Which = Literal["all", "focus"]
LAST, FOCUS = -1, -2
"""In the place of a number: the last item of the list, and what was talked about last."""
Name = Literal["undo", "more", "again", "others", "chips", "help", "reset", "quit", "thanks"]


@dataclass(frozen=True)
class Simple:
    """A command without anything else.

    Attributes:
        name: Which one.
    """

    name: Name


@dataclass(frozen=True)
class Add:
    """Another critique.

    Attributes:
        critique: It.
    """

    critique: Said | Avoided | HasValue | Bound


@dataclass(frozen=True)
class Judge:
    """An opinion on items.

    Attributes:
        opinion: It.
        numbers: Of the list, or `LAST`.
        items: Ids, where titles were given.
        which: All of the list, or what was talked about last.
    """

    opinion: Opinion
    numbers: tuple[int, ...] = ()
    items: tuple[str, ...] = ()
    which: Which | None = None


@dataclass(frozen=True)
class Compare:
    """Items on one side of others, such as older ones.

    Attributes:
        column: Of numbers.
        sign: < or >.
        number: Of the item to compare with, or `FOCUS`; None: the middle of the list.
    """

    column: str
    sign: Literal["<", ">"]
    number: int | None = None


@dataclass(frozen=True)
class Vary:
    """A list of more variety, or of less.

    Attributes:
        steps: 1 or -1.
    """

    steps: int


@dataclass(frozen=True)
class Drop:
    """Chips are taken back.

    Attributes:
        target: Letters, a column, a value, or "all".
        column: Whether it can be nothing but a column, all of whose filters go.
    """

    target: str
    column: bool = False


@dataclass(frozen=True)
class Explain:
    """Why an item stands on the list.

    Attributes:
        number: Its number; None: the one that was talked about last.
        words: Whether the words of its text are named.
    """

    number: int | None
    words: bool = False


@dataclass(frozen=True)
class Describe:
    """All that the columns say of an item.

    Attributes:
        number: Its number.
    """

    number: int


@dataclass(frozen=True)
class Refuse:
    """What is understood and cannot be done.

    Attributes:
        message: A sentence that says so.
    """

    message: str


Action = Simple | Add | Judge | Compare | Vary | Drop | Explain | Describe | Refuse
