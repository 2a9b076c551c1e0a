"""Pieces of a line that mean something by themselves: numbers, references, words that add none."""

from __future__ import annotations

import re
from typing import Literal

from recsys.trained.conversation.language.actions import LAST, Which

ORDINALS = {
    **{"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6},
    **{"seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "last": LAST},
}
_ALL = {
    *("these", "those", "them", "all", "everything", "any of these", "any of them", "all of them"),
    *("all of these", "these ones", "those ones", "all of those", "any of those", "any"),
}
_FOCUS = {"this", "that", "it", "this one", "that one"}
_COUNT = re.compile(r"(?:#|no\.? ?|number |item )?(\d{1,4})(?!\d)$")
_SPAN = re.compile(r"#?(\d{1,4}) ?(?:-|\u2013|to) ?#?(\d{1,4})$")
_LONGEST_SPAN = 100

_LEADING = re.compile(
    r"^(?:please|ok|okay|well|hm+|so|then|and|but|now|maybe|perhaps|just|also|yes|yeah"
    r"|i(?:'d| would) (?:like|prefer|love)(?: to see)?|i(?:'m| am) (?:looking|in the mood) for"
    r"|in the mood for|i (?:want|need|fancy|feel like)"
    r"|we (?:want|need)|looking for|show me|give me|find me|show|find|can you|could you"
    r"|how about|what about|do you have|have you got|is there|are there|make it|let it be"
    r"|it (?:should|must|has to) be|(?:must|should) be|that (?:is|are)|something|anything|some|any"
    r"|a few|a bit|a little|a|an|the|ones?|only|much|even|slightly|way|still|rather|really|very"
    r"|(?:films?|movies?|items?|products?|things?|books?|games?)(?= (?:from|before|after|since"
    r"|until|under|over|below|above|by|with|without|that|older|newer|cheaper)\b))(?:,? +|$)",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"(?:^|[ ,]+)(?:please|instead|then|now|too|as well|though|thanks|thank you|only|stuff|ones?"
    r"|films?|movies?|items?|products?|things?|something|anything)$",
    re.IGNORECASE,
)
_MARKS = " \t.!?,;:…"
_AMOUNT = re.compile(
    r"(?P<before>[$€£])? ?(?P<number>\d[\d,]{0,17}(?:\.\d+)?)(?P<after> ?(?:[$€£]|dollars?|euros?"
    r"|pounds?|bucks))?$"
)


def strip_marks(text: str) -> str:
    """A text without blanks and marks around it."""
    return text.strip(_MARKS)


def strip_fillers(text: str) -> str:
    """A text without the words around it that say nothing, such as "please" or "something"."""
    out = strip_marks(text)
    while True:
        shorter = strip_marks(_TRAILING.sub("", _LEADING.sub("", out, count=1), count=1))
        if shorter == out:
            return out
        out = shorter


def parse_numbers(text: str) -> tuple[int, ...] | None:
    """Numbers of a list, as in "3", "#3 and 5", "the first two"... `LAST`; else None."""
    plain = re.sub(r"^(?:the|numbers?|items?|nos?\.?) ", "", strip_marks(text.lower()))
    span = _SPAN.match(plain)
    if span is not None:
        first, last = int(span[1]), int(span[2])
        return tuple(range(first, last + 1)) if first <= last < first + _LONGEST_SPAN else None
    numbers: list[int] = []
    for part in re.split(r"\s*(?:,|&|\band\b|\bor\b|\bnor\b)\s*|\s+", plain):
        if part in ("", "the", "one", "ones", "number"):
            continue
        count = _COUNT.match(part)
        if count is not None:
            numbers.append(int(count[1]))
        elif part in ORDINALS:
            numbers.append(ORDINALS[part])
        else:
            return None
    return tuple(dict.fromkeys(numbers)) or None


def parse_which(text: str) -> Which | None:
    """All of the list, or what was talked about last; None for anything else."""
    plain = strip_marks(text.lower())
    if plain in _ALL:
        return "all"
    return "focus" if plain in _FOCUS else None


def parse_amount(text: str) -> tuple[float, Literal["price", "list", "number"]] | None:
    """A number and what it can only be: of money, of the list (#3), or any number; else None."""
    plain = strip_marks(text.lower())
    if re.fullmatch(r"#\d{1,4}|(?:no\.?|number) ?\d{1,4}", plain):
        return float(re.sub(r"\D", "", plain)), "list"
    amount = _AMOUNT.match(plain)
    if amount is None:
        return None
    money = amount["before"] or amount["after"] or "." in amount["number"]
    return float(amount["number"].replace(",", "")), "price" if money else "number"
