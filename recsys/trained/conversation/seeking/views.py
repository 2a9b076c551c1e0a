"""What a scripted seeker knows of items: their columns, and words of their texts that recur."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.trained.conversation.columns import normalize
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.seeking.phrases import Comparison

SHARED, SHARE = 20, 0.4
"""A word may be said of an item where so many items have it, and so much of its text at most."""

_ROLES: tuple[tuple[str, Comparison, Comparison], ...] = (
    ("time", "older", "newer"),
    ("price", "cheaper", "dearer"),
    ("popularity", "rarer", "commoner"),
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_DULL = frozenset(
    ("the", "and", "for", "with", "from", "not", "you", "your", "all", "are", "was", "has", "its")
)


class Views:
    """Items of a catalog as people see them; nothing in it comes from a model.

    Args:
        model: Whose items they are.
    """

    def __init__(self, model: ConversationModel) -> None:
        self.model, columns = model, model.columns
        self.values: list[set[tuple[str, str]]] = [set() for _ in model.ids]
        for name, column in columns.values.items():
            for value, rows in column.rows.items():
                for row in rows.tolist():
                    self.values[row].add((name, value))
        named = "title" in model.items.columns
        titles = model.items["title"].to_list() if named else [None] * len(model.ids)
        self.titles = [str(title or "") for title in titles]
        self.words = [self._read_words(row) for row in range(len(model.ids))]
        self._counts = Counter(word for own in self.words for word in own)

    def _read_words(self, row: int) -> tuple[str, ...]:
        """Words of a text, in their order, without those of its title and of its values."""
        taken = set(_WORD.findall(self.titles[row].casefold()))
        for _, value in self.values[row]:
            taken |= set(_WORD.findall(value.casefold()))
        words = _WORD.findall(self.model.texts[row].casefold())
        return tuple(dict.fromkeys(w for w in words if w not in _DULL and w not in taken))

    def count(self, word: str) -> int:
        """How many items have a word."""
        return self._counts[word]

    def list_hints(self, row: int) -> list[str]:
        """Words that say of an item what it is, and not which one: those that many items have."""
        known = [word for word in self.words[row] if self._counts[word] >= SHARED]
        return known[: int(SHARE * len(self.words[row]))]

    @cached_property
    def _weights(self) -> dict[str, float]:
        """By word, how rare it is."""
        size = len(self.words)
        return {word: float(np.log(size / count)) for word, count in self._counts.items()}

    def compare(self, one: int, other: int) -> float:
        """How alike two items are: by values, words and years, each of which adds up to 1."""
        out = _overlap(self.values[one], self.values[other])
        ours, theirs = set(self.words[one]), set(self.words[other])
        both = sum(self._weights[word] for word in ours & theirs)
        every = sum(self._weights[word] for word in ours | theirs)
        out += both / every if every else 0.0
        time = self.model.columns.find_role("time")
        if time is not None:
            years = abs(time.values[one] - time.values[other])
            out += 0.0 if np.isnan(years) else float(np.exp(-years / 10))
        return out

    def list_numbers(self) -> list[tuple[Comparison, Comparison, NDArray[np.float64]]]:
        """What is said for less and for more of each column of numbers that people compare by."""
        columns = self.model.columns
        out = []
        for role, less, more in _ROLES:
            column = columns.find_role(role)
            if column is not None:
                out.append((less, more, column.values))
        return out

    def leaks(self, row: int, line: str) -> bool:
        """Whether a line says the title of an item, or all that its text says."""
        title = normalize(re.sub(r"\s*\(\d{4}[^)]*\).*$", "", self.titles[row]))
        said = normalize(line)
        if title:
            return f" {title} " in f" {said} "
        words = set(_WORD.findall(self.model.texts[row].casefold())) - _DULL
        return bool(words) and words <= set(_WORD.findall(line.casefold()))


def _overlap(one: set[tuple[str, str]], other: set[tuple[str, str]]) -> float:
    every: Sequence[tuple[str, str]] = list(one | other)
    return len(one & other) / len(every) if every else 0.0
