"""A scripted seeker: it looks for one item, and says what is wrong with the list that it is shown.

It has no model: what it says comes from the columns and texts of items, a template, and a seed. One
critique in ten is wrong, as people err. It never says the title of what it looks for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.trained.conversation.seeking.phrases import JOINTS, ORDINALS, Kind, Phrases
from recsys.trained.conversation.seeking.views import Views

WRONG = 0.1
"""Share of critiques that are the opposite of what is meant."""
_BOTH = 1 / 3  # share of lines that say two things
_OPPOSITE: dict[Kind, Kind] = {
    **{"older": "newer", "newer": "older", "cheaper": "dearer", "dearer": "cheaper"},
    **{"rarer": "commoner", "commoner": "rarer"},
}


@dataclass(frozen=True)
class Meant:
    """One thing that a line is to say.

    Attributes:
        kind: What.
        value: A value or a word, where it is of one.
        column: Of the value.
        number: Of the list, where it is of an item.
        wrong: Whether it is the opposite of what is true.
    """

    kind: Kind
    value: str = ""
    column: str = ""
    number: int = 0
    wrong: bool = False


@dataclass(frozen=True)
class Spoken:
    """A line.

    Attributes:
        line: What is said.
        meant: What it is to say.
    """

    line: str
    meant: tuple[Meant, ...]


class Seeker:
    """Someone who looks for an item.

    Args:
        views: The items as people see them.
        target: Catalog row of what is looked for.
        seed: Of all that is drawn.
        phrases: How things are put.
        wrong: Share of critiques that are wrong.
    """

    def __init__(
        self, views: Views, target: int, seed: int, phrases: Phrases, wrong: float = WRONG
    ) -> None:
        self.views, self.target, self._phrases, self._wrong = views, target, phrases, wrong
        self._rng = random.Random(f"seeker {seed}")
        self._said: set[tuple[Kind, str]] = set()

    def open(self) -> Spoken:
        """What is looked for, vaguely: one value or word of the target."""
        values = sorted(self.views.values[self.target])
        words = self.views.list_hints(self.target)
        if values:
            column, value = self._rng.choice(values)
            meant = Meant("open", value, column)
        else:
            meant = Meant("open", self._rng.choice(words) if words else "something")
        self._said |= {("want", meant.value), ("hint", meant.value)}
        return self._speak([meant])

    def answer(self, listed: Sequence[int]) -> Spoken:
        """What is wrong with a list.

        Args:
            listed: Catalog rows of the items that are shown, by their number.
        """
        if not listed:
            return self._speak([Meant("back")])
        facts, opinions = self._list_facts(listed), self._list_opinions(listed)
        order = self._rng.random()
        fact = [self._rng.choice(facts)] if facts else []
        opinion = [self._rng.choice(opinions)] if opinions else []
        if order < _BOTH:
            meant = [*opinion, *fact]
        else:
            meant = (fact or opinion) if order < (1 + _BOTH) / 2 else (opinion or fact)
        out = [self._err(each, listed) for each in meant]
        self._said |= {(each.kind, each.value) for each in out if each.value}
        return self._speak(out or [Meant("others")])

    def _list_facts(self, listed: Sequence[int]) -> list[Meant]:
        """What is true of the target and not of most of the list."""
        views, target = self.views, self.target
        out = []
        for less, more, values in views.list_numbers():
            own, middle = values[target], np.median(values[list(listed)])
            if own < middle or own > middle:
                out.append(Meant(less if own < middle else more))
        own_values = views.values[target]
        shown = [views.values[row] for row in listed]
        for column, value in sorted(own_values):
            if 2 * sum((column, value) in each for each in shown) < len(listed):
                out.append(Meant("want", value, column))
        for column, value in sorted(set().union(*shown) - own_values):
            if any(name == column for name, _ in own_values):
                out.append(Meant("refuse", value, column))
        shown_words = [set(views.words[row]) for row in listed]
        for word in views.list_hints(target):
            if 2 * sum(word in each for each in shown_words) < len(listed):
                out.append(Meant("hint", word))
        others = set().union(*shown_words) - set(views.words[target])
        if not own_values:
            out += [Meant("avoid", word) for word in sorted(others) if self._is_common(word)]
        return [each for each in out if (each.kind, each.value) not in self._said]

    def _is_common(self, word: str) -> bool:
        return self.views.count(word) >= len(self.views.words) // 100

    def _list_opinions(self, listed: Sequence[int]) -> list[Meant]:
        """That the nearest item of the list is near, and the farthest is not."""
        near = [self.views.compare(self.target, row) for row in listed]
        best, worst = int(np.argmax(near)), int(np.argmin(near))
        out = [Meant("like", number=best + 1)]
        if near[worst] < near[best]:
            out.append(Meant("dislike", number=worst + 1))
        return out

    def _err(self, meant: Meant, listed: Sequence[int]) -> Meant:
        """The same, or in one case of ten its opposite."""
        if self._rng.random() >= self._wrong:
            return meant
        if meant.kind in _OPPOSITE:
            return Meant(_OPPOSITE[meant.kind], wrong=True)
        if meant.number:
            numbers = [n for n in range(1, len(listed) + 1) if n != meant.number]
            number = self._rng.choice(numbers) if numbers else meant.number
            return Meant(meant.kind, number=number, wrong=True)
        opposites: dict[Kind, Kind] = {"want": "refuse", "refuse": "want", "hint": "avoid"}
        kind = opposites.get(meant.kind, "hint")
        return Meant(kind, meant.value, meant.column, wrong=True)

    def _speak(self, meant: Sequence[Meant]) -> Spoken:
        lines = [self._put(each) for each in meant]
        line = lines[0]
        if len(lines) > 1:
            line = self._rng.choice(JOINTS).format(a=lines[0].rstrip("?"), b=lines[1])
        return Spoken(line, tuple(meant))

    def _put(self, meant: Meant) -> str:
        nth = ORDINALS[meant.number - 1] if 0 < meant.number <= len(ORDINALS) else meant.number
        phrase = self._rng.choice(self._phrases[meant.kind])
        return phrase.format(v=meant.value.lower(), n=meant.number, nth=nth)
