"""Phrases that compare a number of an item: years, prices, "older", "pages under 300"."""

from __future__ import annotations

import re
from typing import Literal

from recsys.trained.conversation.columns import ItemColumns, NumberColumn
from recsys.trained.conversation.critiques import Bound, Sign
from recsys.trained.conversation.language.actions import FOCUS, Action, Add, Compare, Refuse
from recsys.trained.conversation.language.phrases import parse_amount, parse_numbers, parse_which

COMPARATIVES: dict[str, tuple[str, Literal["<", ">"]]] = {
    **dict.fromkeys(("older", "earlier", "less recent", "less modern"), ("time", "<")),
    **dict.fromkeys(("more vintage", "more classic", "more old-fashioned"), ("time", "<")),
    **dict.fromkeys(("newer", "later", "more recent", "more modern"), ("time", ">")),
    **dict.fromkeys(("more up to date", "more current", "more contemporary"), ("time", ">")),
    **dict.fromkeys(("cheaper", "less expensive", "more affordable"), ("price", "<")),
    **dict.fromkeys(("more expensive", "pricier", "dearer"), ("price", ">")),
    **dict.fromkeys(
        ("better rated", "higher rated", "rated better", "rated higher"), ("rating", ">")
    ),
    **dict.fromkeys(("more popular", "better known", "more famous"), ("popularity", ">")),
    **dict.fromkeys(
        ("less popular", "less known", "lesser known", "less famous", "more obscure"),
        ("popularity", "<"),
    ),
    "longer": ("length", ">"),
    "shorter": ("length", "<"),
    "bigger": ("size", ">"),
    "larger": ("size", ">"),
    "smaller": ("size", "<"),
    "heavier": ("weight", ">"),
    "lighter": ("weight", "<"),
}
"""Comparatives, the role of the column that each is about, and its side."""

TOO = {
    **dict.fromkeys(("old", "old-fashioned", "dated"), "newer"),
    **dict.fromkeys(("new", "recent", "modern"), "older"),
    **dict.fromkeys(("expensive", "pricey", "dear", "costly"), "cheaper"),
    "cheap": "pricier",
    **dict.fromkeys(("popular", "mainstream", "well known", "famous"), "less popular"),
    **dict.fromkeys(("obscure", "unknown"), "more popular"),
    **{"long": "shorter", "short": "longer", "big": "smaller", "large": "smaller"},
    **{"small": "bigger", "heavy": "lighter", "light": "heavier"},
}
"""What "too ..." asks for."""

_TOO = re.compile(
    rf"(?:(?:these|those|this|that|they|it)(?:'s| is| are|'re| feels?| looks?| seems?)? )?(?:all )?"
    rf"(?:(?:a (?:bit|little) )?(?:far |much |way )?too|(?:not|less)(?: so| that| as| quite so)?) "
    rf"({'|'.join(TOO)})$",
    re.IGNORECASE,
)
_OPTIONAL = ("length", "size", "weight")  # without such a column, the word is free text
_WORDS = "|".join(sorted(COMPARATIVES, key=len, reverse=True))
_COMPARE = re.compile(rf"({_WORDS})(?: than (.+))?$", re.IGNORECASE)
_NOT_COMPARE = re.compile(rf"(?:not|no|nothing) ({_WORDS})(?: than (.+))?$", re.IGNORECASE)
_TENS = (
    *("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties"),
    "nineties",
)
_DECADE = r"(?:the )?(?:early |late )?(?:((?:1[5-9]|20)?\d0)'?s|(" + "|".join(_TENS) + r"))"
_WHOLE_DECADE = re.compile(rf"(?:from |in |of )?{_DECADE}$", re.IGNORECASE)
_SIGNS: dict[str, Sign] = {
    **dict.fromkeys(("before", "earlier than", "older than"), "<"),
    **dict.fromkeys(("until", "till", "up to", "at most", "no more than", "not more than"), "<="),
    **dict.fromkeys(("after", "later than", "newer than"), ">"),
    **dict.fromkeys(("since", "at least", "no less than", "not less than", "not under"), ">="),
    **dict.fromkeys(("under", "below", "less than", "cheaper than", "<"), "<"),
    **dict.fromkeys(("over", "above", "more than", ">"), ">"),
    **dict.fromkeys(("max", "maximum", "within", "not over", "<="), "<="),
    **dict.fromkeys(("min", "minimum", ">="), ">="),
    **dict.fromkeys(("in", "from", "exactly", "=", "is"), "="),
}
_OF_TIME = ("before", "until", "till", "after", "since", "in", "from")
_SIGN = "|".join(re.escape(word) for word in sorted(_SIGNS, key=len, reverse=True))
_MADE = r"(?:(?:made|released|published|written|shot|from|that came out|out) )?"
_SIGNED = re.compile(rf"{_MADE}({_SIGN}) *(.+)$", re.IGNORECASE)
_BETWEEN = re.compile(
    r"(?:(?:from|between) )?([$€£]?[\d.,]+\S*) ?(?:-|\u2013|to|and|until) ?([$€£]?[\d.,]+[^\s]*"
    r"(?: (?:dollars|euros|pounds))?)$",
    re.IGNORECASE,
)
_ONWARD = re.compile(r"(?:from )(\d{4}) (?:on|onwards?|and later|and newer)$", re.IGNORECASE)
_YEAR = re.compile(r"\d{4}$")
_UNITS = {
    "time": "year",
    "price": "price",
    "rating": "rating",
    "length": "length",
    "popularity": "popularity",
}


def parse_comparison(text: str, columns: ItemColumns, length: int) -> list[Action] | None:
    """What a whole phrase compares, or None where it compares nothing.

    Args:
        text: Without words that add nothing.
        columns: Of the items.
        length: Of the list.
    """
    return (
        _parse_comparative(text, columns, length)
        or _parse_decade(text, columns)
        or _parse_range(text, columns)
        or _parse_signed(text, columns)
        or _parse_column(text, columns)
    )


def _parse_comparative(text: str, columns: ItemColumns, length: int) -> list[Action] | None:
    too = _TOO.match(text)
    if too is not None:
        text = TOO[too[1].lower()]
    negated = _NOT_COMPARE.match(text)
    match = negated or _COMPARE.match(text)
    if match is None:
        return None
    role, sign = COMPARATIVES[match[1].lower()]
    column = columns.find_role(role)
    if column is None:
        return None if role in _OPTIONAL else [_refuse(role, columns)]
    if match[2] is None:
        if negated:
            sign = "<" if sign == ">" else ">"
        return [Compare(column.name, sign)]
    amount = parse_amount(match[2])
    if amount is None or amount[1] == "list" or _is_of_list(amount, role, length):
        numbers = parse_numbers(match[2])
        if parse_which(match[2]) == "all" or match[2].lower() in ("this list", "the list"):
            return None if negated else [Compare(column.name, sign)]
        if parse_which(match[2]) == "focus":
            numbers = (FOCUS,)
        if numbers is None or len(numbers) != 1 or negated:
            return None
        return [Compare(column.name, sign, numbers[0])]
    strict: Sign = sign
    if negated:
        strict = ">=" if sign == "<" else "<="
    return [Add(Bound(column.name, strict, amount[0]))]


def _is_of_list(
    amount: tuple[float, Literal["price", "list", "number"]], role: str, length: int
) -> bool:
    """Whether a bare number is one of the list: a year never is, and no more than there are."""
    value, kind = amount
    return kind == "number" and value.is_integer() and 1 <= value <= length and role != "rating"


def _parse_decade(text: str, columns: ItemColumns) -> list[Action] | None:
    match = _WHOLE_DECADE.match(text)
    if match is None:
        return None
    column = columns.find_role("time")
    if column is None:
        return [_refuse("time", columns)]
    return _make_decade(column, match[1], match[2])


def _make_decade(column: NumberColumn, digits: str | None, word: str | None) -> list[Action]:
    """Both bounds of a decade; of two digits, 00s to 20s are of this century."""
    if word:
        digits = f"19{2 + _TENS.index(word.lower())}0"
    assert digits is not None
    start = int(digits)
    if len(digits) == 2:
        start += 2000 if start <= 20 else 1900
    return [Add(Bound(column.name, ">=", start)), Add(Bound(column.name, "<=", start + 9))]


def _parse_range(text: str, columns: ItemColumns) -> list[Action] | None:
    onward = _ONWARD.match(text)
    if onward is not None:
        return _bound(columns, ">=", onward[1], True)
    match = _BETWEEN.match(text)
    if match is None:
        return None
    first, last = parse_amount(match[1]), parse_amount(match[2])
    if first is None or last is None:
        return None
    column = _choose(columns, last, _YEAR.match(match[2]) is not None)
    if isinstance(column, Refuse) or column is None:
        return None if column is None else [column]
    low, high = sorted((first[0], last[0]))
    return [Add(Bound(column.name, ">=", low)), Add(Bound(column.name, "<=", high))]


def _parse_signed(text: str, columns: ItemColumns) -> list[Action] | None:
    if _YEAR.match(text) and columns.find_role("time") is not None:
        return _bound(columns, "=", text, True)
    match = _SIGNED.match(text)
    if match is None:
        return None
    word = match[1].lower()
    if word in _OF_TIME and not _YEAR.match(match[2]):
        return None
    return _bound(columns, _SIGNS[word], match[2], word in _OF_TIME)


def _bound(columns: ItemColumns, sign: Sign, text: str, of_time: bool) -> list[Action] | None:
    """One bound of the column that a number can be of."""
    amount = parse_amount(text)
    if amount is None or amount[1] == "list":
        return None
    if of_time:
        column: NumberColumn | Refuse | None = columns.find_role("time") or _refuse("time", columns)
    else:
        column = _choose(columns, amount, False)
    if isinstance(column, Refuse) or column is None:
        return None if column is None else [column]
    return [Add(Bound(column.name, sign, amount[0]))]


def _choose(
    columns: ItemColumns, amount: tuple[float, str], of_time: bool
) -> NumberColumn | Refuse | None:
    """The column that a number without a name is of: the price, else the year, where it is one."""
    time, price = columns.find_role("time"), columns.find_role("price")
    if amount[1] == "price":
        return price or _refuse("price", columns)
    year = 1000 <= amount[0] <= 2100 and amount[0].is_integer()
    if year and time is not None and (of_time or price is None):
        return time
    return price if price is not None else None


def _parse_column(text: str, columns: ItemColumns) -> list[Action] | None:
    """A column by its name: "pages under 300", "higher price", "price: 5"."""
    match = re.match(
        rf"(?P<column>[\w ]+?)(?: is)?:? *(?:(?P<sign>{_SIGN}) *)?(?P<value>[$€£]?\d[\d.,]*)$",
        text,
        re.IGNORECASE,
    )
    if match is not None:
        name, amount = columns.find_column(match["column"]), parse_amount(match["value"])
        if name in columns.numbers and amount is not None:
            sign = _SIGNS[(match["sign"] or "=").lower()]
            return [Add(Bound(str(name), sign, amount[0]))]
    side = re.match(r"(higher|more|lower|less|fewer) (.+)$", text, re.IGNORECASE)
    name = columns.find_column(side[2]) if side is not None else None
    if side is None or name not in columns.numbers:
        return None
    return [Compare(str(name), ">" if side[1].lower() in ("higher", "more") else "<")]


def _refuse(role: str, columns: ItemColumns) -> Refuse:
    unit = _UNITS[role]
    return Refuse(f"The items have no {unit}; their columns are {', '.join(columns.names)}.")


_CUT_TIME = re.compile(
    rf"\b(?:(?:(?:not )?(?:newer|older|later|earlier) than|before|after|since|until) \d{{4}}"
    rf"|from \d{{4}} (?:to|until|onwards?|and later)(?: \d{{4}})?|from \d{{4}}"
    rf"|between \d{{4}} and \d{{4}}|from {_DECADE})\b",
    re.IGNORECASE,
)
_CUT_START = re.compile(r"^(?:(?:1[5-9]|20)?\d0'?s)\b", re.IGNORECASE)
_CUT_AMOUNT = re.compile(
    r"\b(?:under|below|over|above|at most|at least|up to|less than|more than|cheaper than)"
    r" (?:[$€£] ?[\d.,]+|[\d.,]+ ?(?:[$€£]|dollars?|euros?|pounds?)?)$",
    re.IGNORECASE,
)


def cut_comparison(text: str, columns: ItemColumns, length: int) -> tuple[str, list[Action]] | None:
    """A comparison inside of a free text: what is left of the text, and what it asks; else None.

    Only what can hardly mean anything else is cut: "before 1990", "from the 90s", a decade at the
    start, and an amount at the end where the items have a price.

    Args:
        text: Free text.
        columns: Of the items.
        length: Of the list.
    """
    patterns = [_CUT_TIME, _CUT_START] if columns.find_role("time") is not None else []
    patterns += [_CUT_AMOUNT] if columns.find_role("price") is not None else []
    for pattern in patterns:
        match = pattern.search(text)
        if match is None:
            continue
        actions = parse_comparison(match[0], columns, length)
        if actions is not None and not any(isinstance(each, Refuse) for each in actions):
            rest = f"{text[: match.start()].rstrip()} {text[match.end() :].lstrip()}".strip()
            return rest, actions
    return None
