"""Which items may be recommended, as an expression over their columns; parsed, never evaluated.

year >= 1990 and genres contains 'Comedy' and not (item in ('7', '9'))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import ConfigError, nearest

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|(?P<number>-?\d+(?:\.\d+)?)"
    r"|(?P<sign><=|>=|!=|==|=|<|>|\(|\)|,)|(?P<word>\w+))"
)
_SIGNS = ("<=", ">=", "!=", "==", "=", "<", ">")
_MOST = 200  # tokens: nested ones are parsed by recursion

Value = str | float


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


def find_rows_outside(items: pl.DataFrame, where: str) -> NDArray[np.int64]:
    """(S,) rows of the items for which an expression does not hold; an empty value holds nowhere.

    Args:
        items: As `Tables.items`.
        where: Comparisons (=, !=, <, <=, >, >=), `contains` and `in (...)` of columns with quoted
            texts or numbers, combined by `and`, `or`, `not` and parentheses.

    Raises:
        ConfigError: It is no such expression, or names an unknown column.
    """
    expression = _Parser(where, items).parse()
    holds = items.select(expression.fill_null(False)).to_series()
    return np.flatnonzero(~holds.to_numpy()).astype(np.int64)


class _Parser:
    """Recursive descent: or, and, not, comparison.

    Args:
        where: The expression.
        items: Whose columns it may name.
    """

    def __init__(self, where: str, items: pl.DataFrame) -> None:
        self._where, self._schema = where, items.schema
        self._tokens, self._at = self._split(), 0

    def parse(self) -> pl.Expr:
        """The whole expression."""
        out = self._parse_or()
        if self._at < len(self._tokens):
            raise self._refuse(f"'{self._tokens[self._at].text}' stands where nothing is expected")
        return out

    def _split(self) -> Sequence[_Token]:
        out, at = [], 0
        while self._where[at:].strip():
            match = _TOKEN.match(self._where, at)
            if match is None:
                raise self._refuse(f"'{self._where[at:].strip()[:10]}' is not understood")
            assert match.lastgroup is not None
            out.append(_Token(match.lastgroup, match[match.lastgroup]))
            at = match.end()
        if not 0 < len(out) <= _MOST:
            raise self._refuse("it is empty" if not out else "it is too long")
        return out

    def _parse_or(self) -> pl.Expr:
        out = self._parse_and()
        while self._take("or"):
            out = out | self._parse_and()
        return out

    def _parse_and(self) -> pl.Expr:
        out = self._parse_not()
        while self._take("and"):
            out = out & self._parse_not()
        return out

    def _parse_not(self) -> pl.Expr:
        if self._take("not"):
            return ~self._parse_not().fill_null(False)
        if self._take("("):
            out = self._parse_or()
            self._expect(")")
            return out
        return self._parse_comparison()

    def _parse_comparison(self) -> pl.Expr:
        name = self._next("a column")
        if name.kind != "word" or name.text not in self._schema:
            known = ", ".join(self._schema)
            raise self._refuse(
                f"the items have no column '{name.text}' (there are: {known})."
                f"{nearest(name.text, list(self._schema))}".rstrip(".")
            )
        sign = self._next("a comparison")
        if sign.text == "contains":
            return self._make_contains(name.text)
        if sign.text == "in":
            self._expect("(")
            out = self._compare(name.text, "=")
            while self._take(","):
                out = out | self._compare(name.text, "=")
            self._expect(")")
            return out
        if sign.text not in _SIGNS:
            raise self._refuse(
                f"'{sign.text}' is no comparison: write one of {', '.join(_SIGNS)}, contains, in"
            )
        return self._compare(name.text, sign.text)

    def _make_contains(self, name: str) -> pl.Expr:
        value, kind = str(self._read_value()), self._schema[name]
        if isinstance(kind, pl.List) and not kind.inner.is_nested():
            return pl.col(name).cast(pl.List(pl.String)).list.contains(value)
        self._check_plain(name)
        return pl.col(name).cast(pl.String).str.contains(value, literal=True)

    def _check_plain(self, name: str) -> None:
        """Refuses a column whose values are no single ones.

        Raises:
            ConfigError: It is one.
        """
        kind = self._schema[name]
        if isinstance(kind, pl.List) and not kind.inner.is_nested():
            raise self._refuse(f"column '{name}' holds lists; write {name} contains 'VALUE'")
        if kind.is_nested():
            raise self._refuse(f"column '{name}' holds {kind}, which cannot be compared")

    def _compare(self, name: str, sign: str) -> pl.Expr:
        self._check_plain(name)
        value, column = self._read_value(), pl.col(name)
        if isinstance(value, str):
            column = column.cast(pl.String)
        elif not self._schema[name].is_numeric():
            if self._schema[name] != pl.String:
                raise self._refuse(f"column '{name}' is no number; quote the value")
            column = column.cast(pl.Float64, strict=False)  # tables hold numbers as texts too
        other = pl.lit(value)
        signs = {"<": column < other, "<=": column <= other, ">": column > other}
        signs |= {">=": column >= other, "!=": column != other}
        return signs.get(sign, column == other)

    def _read_value(self) -> Value:
        token = self._next("a value")
        if token.kind == "number":
            return float(token.text)
        if token.kind != "text":
            raise self._refuse(f"'{token.text}' is to be quoted, as in '{token.text}'")
        inner = token.text[1:-1]
        return inner.replace("''", "'") if token.text[0] == "'" else inner

    def _next(self, what: str) -> _Token:
        if self._at >= len(self._tokens):
            raise self._refuse(f"{what} is missing at the end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, text: str) -> bool:
        here = self._tokens[self._at] if self._at < len(self._tokens) else None
        taken = here is not None and here.kind in ("word", "sign") and here.text == text
        self._at += taken
        return taken

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._refuse(f"'{text}' is missing")

    def _refuse(self, what: str) -> ConfigError:
        return ConfigError(f"where={self._where}: {what}.")
