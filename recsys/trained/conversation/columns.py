"""The columns of items as someone speaks of them: numbers, values, and which one is the year."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.trained.conversation.critiques import Bound, HasValue

POPULARITY = "popularity"
"""Column of how often an item is in the training events, where the items have none of that name."""

ROLES = {
    "time": ("year", "date", "released", "published"),
    "price": ("price", "cost"),
    "rating": ("rating", "stars"),
    "popularity": (POPULARITY,),
    "length": ("runtime", "duration", "length", "pages", "minutes"),
    "size": ("size",),
    "weight": ("weight",),
}
"""What a column of numbers may be, by words of its name; the first column of a role has it."""

SYNONYMS = {
    "science fiction": "sci fi",
    "romantic": "romance",
    "animated": "animation",
    "scary": "horror",
    "kid": "children",
    "documentarie": "documentary",
}
"""Words that mean a value of another name, where the items have that one."""

_COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "=": np.equal,
}
_APART = ("item", "text", "title", "available_from", "available_until")
_NUMERIC, _DATED = 0.9, re.compile(r"^\s*(\d{4})-\d\d")
_MONEY = re.compile(r"^\s*[$€£]?\s*(-?\d[\d,]*(?:\.\d+)?|-?\.\d+)\s*$")
_LONGEST, _WORDS = 40, 4  # signs and words of a value that someone would say
_FEW = 50  # values may mostly be of one item each
_TEXT = 150  # signs of a text that is no list of values, at the median
_YEARS = (1000, 2100)


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes:
        name: Of the column.
        values: (I,) float64, NaN where an item has none.
    """

    name: str
    values: NDArray[np.float64]

    @property
    def is_time(self) -> bool:
        """Whether its numbers are years."""
        known = self.values[~np.isnan(self.values)]
        return bool(len(known) and _YEARS[0] <= np.median(known) <= _YEARS[1])


@dataclass(frozen=True)
class ValueColumn:
    """A column of values, such as genres, of which an item may have several.

    Attributes:
        name: Of the column.
        several: Whether an item has more than one.
        rows: Catalog rows of the items that have it, by value.
    """

    name: str
    several: bool
    rows: dict[str, NDArray[np.int64]]


class ItemColumns:
    """The columns of a catalog.

    Args:
        items: As `Tables.items`.
        counts: (I,) how often each item is in the training events.

    Attributes:
        size: I, the number of items.
        numbers: Columns of numbers by name.
        values: Columns of values by name.
    """

    numbers: dict[str, NumberColumn]
    values: dict[str, ValueColumn]

    def __init__(self, items: pl.DataFrame, counts: NDArray[np.float64]) -> None:
        self.size, self.numbers, self.values = len(items), {}, {}
        for name in items.columns:
            if name in _APART:
                continue
            numbers = _read_numbers(items[name])
            if numbers is not None:
                self.numbers[name] = NumberColumn(name, numbers)
            elif (values := _read_values(items[name])) is not None:
                self.values[name] = values
        if POPULARITY not in items.columns:
            self.numbers[POPULARITY] = NumberColumn(POPULARITY, counts)
        self._spoken = self._make_lookup()

    @property
    def names(self) -> list[str]:
        """Of all columns that can be asked for."""
        return [*self.numbers, *self.values]

    def find_role(self, role: str) -> NumberColumn | None:
        """The column of numbers that has a role, or None."""
        words = ROLES[role]
        for word in words:
            for name, column in self.numbers.items():
                named = word in re.split(r"[^a-z]+", name.casefold())
                if named and (role != "time" or column.is_time):
                    return column
        return None

    def find_column(self, word: str) -> str | None:
        """The name of the column that a word means, in the singular or plural, or None."""
        wanted = normalize(word)
        return next((name for name in self.names if normalize(name) == wanted), None)

    def find_value(self, phrase: str, column: str | None = None) -> HasValue | None:
        """The value that a phrase names; of several columns, in that where most items have it.

        Args:
            phrase: Such as "comedies" or "science fiction".
            column: The one to look in; None: all.
        """
        key = normalize(phrase)
        for wanted in dict.fromkeys((key, key.replace(" ", ""), SYNONYMS.get(key, key))):
            named = [
                (len(self.values[name].rows[value]), HasValue(name, (value,)))
                for name, value in self._spoken.get(wanted, ())
                if column in (None, name)
            ]
            if named:
                return max(named, key=lambda pair: pair[0])[1]  # of equals the first
        return None

    def keep(self, filters: Iterable[HasValue | Bound]) -> NDArray[np.bool_]:
        """(I,) whether each item fits; an empty value fits nothing but a negation."""
        out = np.ones(self.size, dtype=bool)
        for each in filters:
            out &= self.match(each)
        return out

    def match(self, critique: HasValue | Bound) -> NDArray[np.bool_]:
        """(I,) whether each item fits one filter."""
        if isinstance(critique, Bound):
            values = self.numbers[critique.column].values
            return np.asarray(_COMPARE[critique.sign](values, critique.value), dtype=bool)
        mask = np.zeros(self.size, dtype=bool)
        for value in critique.values:
            mask[self.values[critique.column].rows[value]] = True
        return ~mask if critique.negated else mask

    def knows(self, critique: HasValue | Bound) -> bool:
        """Whether there is such a column, and such a value in it."""
        if isinstance(critique, Bound):
            return critique.column in self.numbers
        own = self.values.get(critique.column)
        return own is not None and all(value in own.rows for value in critique.values)

    def _make_lookup(self) -> dict[str, list[tuple[str, str]]]:
        """Columns and values by what is said for them, in the order of the table."""
        out: dict[str, list[tuple[str, str]]] = {}
        for name, column in self.values.items():
            for value in column.rows:
                key = normalize(value)
                for spoken in dict.fromkeys((key, key.replace(" ", ""))):
                    if spoken:
                        out.setdefault(spoken, []).append((name, value))
        return out


def normalize(phrase: str) -> str:
    """A phrase as it is compared: no case, accents, punctuation or plural of its last word."""
    plain = unicodedata.normalize("NFKD", phrase.casefold())
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    plain = re.sub(r"['\u2019`]", "", plain)
    words = re.sub(r"[\W_]+", " ", plain).split()
    if not words:
        return ""
    last = words[-1]
    if last.endswith("ies") and len(last) > 4:
        last = f"{last[:-3]}y"
    elif last.endswith("s") and not last.endswith("ss") and len(last) > 3:
        last = last[:-1]
    return " ".join([*words[:-1], last])


def _read_numbers(column: pl.Series) -> NDArray[np.float64] | None:
    """(I,) the numbers of a column, or None where it does not hold any."""
    if column.dtype in (pl.Date, pl.Datetime):
        return column.dt.year().cast(pl.Float64).fill_null(np.nan).to_numpy()
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if column.dtype != pl.String:
        return None
    texts = column.str.strip_chars().replace("", None)
    known = len(texts) - texts.null_count()
    for pattern in (_MONEY, _DATED):
        found = texts.str.extract(pattern.pattern, 1).str.replace_all(",", "")
        numbers = found.cast(pl.Float64, strict=False)
        if known and len(numbers) - numbers.null_count() >= _NUMERIC * known:
            return numbers.fill_null(np.nan).to_numpy()
    return None


def _read_values(column: pl.Series) -> ValueColumn | None:
    """A column whose values recur and are short enough to be said, or None."""
    parts = _split_values(column)
    if parts is None:
        return None
    rows: dict[str, list[int]] = {}
    for row, own in enumerate(parts):
        for value in dict.fromkeys(own):
            rows.setdefault(value, []).append(row)
    total = sum(map(len, rows.values()))
    recurring = sum(len(own) for own in rows.values() if len(own) > 1)
    long = sum(len(v) > _LONGEST or len(v.split()) > _WORDS for v in rows)
    rare = not recurring or (len(rows) > _FEW and 2 * recurring < total)
    if not rows or rare or 2 * long > len(rows):
        return None
    several = any(len(own) > 1 for own in parts)
    found = {value: np.array(own, dtype=np.int64) for value, own in rows.items()}
    return ValueColumn(column.name, several, found)


def _split_values(column: pl.Series) -> Sequence[Sequence[str]] | None:
    """The values of each item: of a list, or of a text with bars, semicolons or commas."""
    if isinstance(column.dtype, pl.List) and not column.dtype.inner.is_nested():
        lists = column.cast(pl.List(pl.String)).to_list()
        return [[v.strip() for v in own or () if v and v.strip()] for own in lists]
    if column.dtype not in (pl.String, pl.Categorical, pl.Boolean) and not isinstance(
        column.dtype, pl.Enum
    ):
        return None
    texts = column.cast(pl.String)
    length = texts.str.len_chars().median()
    if not isinstance(length, float | int) or length > _TEXT:
        return None
    whole = [(text or "").strip() for text in texts.to_list()]
    best = [[text] if text else [] for text in whole]
    for sign in ("|", ";", ","):
        if not any(sign in text for text in whole):
            continue
        split = [[v.strip() for v in text.split(sign) if v.strip()] for text in whole]
        # Those of a list leave fewer values, or such as recur; the comma of "Acme, Inc." does not.
        fewer = _count_distinct(split) < _count_distinct(best)
        if sign == "|" or fewer or (_recur(split) and not _recur(best)):
            return split
    return best


def _count_distinct(parts: Sequence[Sequence[str]]) -> int:
    return len({value for own in parts for value in own})


def _recur(parts: Sequence[Sequence[str]]) -> bool:
    """Whether most of the values that stand there are also those of another item."""
    counts = Counter(value for own in parts for value in set(own))
    return 2 * sum(count for count in counts.values() if count > 1) >= counts.total()
