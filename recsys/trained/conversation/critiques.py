"""What someone has said of a list so far, as data: the state of a conversation.

A state is a tuple of critiques, in the order in which they were said, and the items that stand on
the list. Nothing else decides the next list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from recsys.errors import DataError

Sign = Literal["<", "<=", ">", ">=", "="]


@dataclass(frozen=True)
class Said:
    """Free text that the query moves towards."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Avoided:
    """Free text that the query moves away from."""

    kind: ClassVar[str] = "avoided"
    text: str


@dataclass(frozen=True)
class Liked:
    """An item that the query moves towards."""

    kind: ClassVar[str] = "liked"
    item: str


@dataclass(frozen=True)
class Disliked:
    """An item that the query moves away from."""

    kind: ClassVar[str] = "disliked"
    item: str


@dataclass(frozen=True)
class Hidden:
    """Items that are left out of lists and say nothing else."""

    kind: ClassVar[str] = "hidden"
    items: tuple[str, ...]


@dataclass(frozen=True)
class HasValue:
    """Items that have one of some values in a column, or have none of them."""

    kind: ClassVar[str] = "value"
    column: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True)
class Bound:
    """Items whose number in a column lies on one side of another one."""

    kind: ClassVar[str] = "bound"
    column: str
    sign: Sign
    value: float


@dataclass(frozen=True)
class Variety:
    """How unlike each other the items of a list are: `Choice.diversity`."""

    kind: ClassVar[str] = "variety"
    level: float


Critique = Said | Avoided | Liked | Disliked | Hidden | HasValue | Bound | Variety
_KINDS: Mapping[str, type[Critique]] = {
    each.kind: each for each in (Said, Avoided, Liked, Disliked, Hidden, HasValue, Bound, Variety)
}
_SIDE = {"<": -1, "<=": -1, ">": 1, ">=": 1, "=": 0}


@dataclass(frozen=True)
class State:
    """Where a conversation is.

    Attributes:
        critiques: What holds, in the order in which it was said.
        listed: Ids of the items on the list, by their number; more of them were shown page by page.
        focus: Number of the item that was talked about last, or None.
    """

    critiques: tuple[Critique, ...] = ()
    listed: tuple[str, ...] = ()
    focus: int | None = None

    def list_texts(self) -> list[str]:
        """What is looked for, the latest first."""
        return [each.text for each in reversed(self.critiques) if isinstance(each, Said)]

    def list_avoided(self) -> list[str]:
        """What is not looked for, the latest first."""
        return [each.text for each in reversed(self.critiques) if isinstance(each, Avoided)]

    def list_liked(self) -> list[str]:
        """Ids of liked items, the latest last."""
        return [each.item for each in self.critiques if isinstance(each, Liked)]

    def list_disliked(self) -> list[str]:
        """Ids of disliked items, the latest last."""
        return [each.item for each in self.critiques if isinstance(each, Disliked)]

    def list_left_out(self) -> list[str]:
        """Ids of all items of which something was said: they stand on no further list."""
        hidden = [
            item for each in self.critiques if isinstance(each, Hidden) for item in each.items
        ]
        return [*self.list_liked(), *self.list_disliked(), *hidden]

    def list_filters(self) -> list[HasValue | Bound]:
        """What items have to be."""
        return [each for each in self.critiques if isinstance(each, HasValue | Bound)]

    @property
    def variety(self) -> float:
        """How unlike each other the items of a list are, from 0."""
        return next((e.level for e in self.critiques if isinstance(e, Variety)), 0.0)

    def add(self, critique: Critique, several: bool = True) -> State:
        """The state with one more critique, which takes the place of those that it contradicts.

        Args:
            critique: What was said.
            several: Whether an item may have several values of the column that it names.
        """
        kept = [each for each in self.critiques if not _replaces(critique, each, several)]
        if isinstance(critique, Variety) and not critique.level:
            return replace(self, critiques=tuple(kept))
        return replace(self, critiques=(*kept, critique))

    def drop(self, places: set[int]) -> State:
        """The state without the critiques at some places."""
        kept = tuple(each for n, each in enumerate(self.critiques) if n not in places)
        return replace(self, critiques=kept)

    def to_json(self) -> dict[str, Any]:
        """It as JSON has it."""
        told = [{"kind": each.kind, **vars(each)} for each in self.critiques]
        return {"critiques": told, "listed": list(self.listed), "focus": self.focus}

    @classmethod
    def from_json(cls, value: object) -> State:
        """What `to_json` gave.

        Raises:
            DataError: It is nothing of that kind.
        """
        try:
            assert isinstance(value, Mapping)
            told = tuple(_parse_critique(each) for each in value["critiques"])
            focus = value["focus"]
            assert focus is None or isinstance(focus, int)
            return cls(told, tuple(map(str, value["listed"])), focus)
        except (AssertionError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"it is no state of a conversation ({type(error).__name__}).") from None


def _parse_critique(value: Mapping[str, Any]) -> Critique:
    kind: Callable[..., Critique] = _KINDS[value["kind"]]
    given = {name: _parse_field(name, of) for name, of in value.items() if name != "kind"}
    return kind(**given)


def _parse_field(name: str, value: object) -> object:
    """The value of a critique's field, once it is of its kind."""
    if name in ("items", "values"):
        assert isinstance(value, list)
        return tuple(map(str, value))
    if name == "sign":
        assert value in _SIDE
    elif name == "negated":
        assert isinstance(value, bool)
    else:
        assert isinstance(value, float | int if name in ("value", "level") else str)
    return value


def _replaces(new: Critique, old: Critique, several: bool) -> bool:
    """Whether a critique takes the place of an earlier one."""
    if isinstance(new, Liked | Disliked) and isinstance(old, Liked | Disliked):
        return new.item == old.item
    if isinstance(new, Bound) and isinstance(old, Bound):
        # An exact number takes the place of both bounds, and each of them that of it.
        sides = _SIDE[new.sign], _SIDE[old.sign]
        return new.column == old.column and (sides[0] == sides[1] or 0 in sides)
    if isinstance(new, HasValue) and isinstance(old, HasValue) and new.column == old.column:
        if new.negated == old.negated:
            return new.values == old.values or not (several or new.negated)
        return bool(set(new.values) & set(old.values))
    return (isinstance(new, Variety) and isinstance(old, Variety)) or new == old
