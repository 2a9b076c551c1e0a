"""Critiques by their words, where no phrase of the grammar is one: the last look before free text.

A part of a line that names one item of the list, or one value of a column, and else has nothing but
words of opinion and words that say nothing is an opinion on that: "number 2 comes close", "the
third one does nothing for me", "could you leave out the horror"; so is a comparative, as in "maybe
a bit older". One word that is none of these makes it text: "space comedy", "a comedy about war".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from recsys.trained.conversation.columns import ItemColumns
from recsys.trained.conversation.critiques import HasValue
from recsys.trained.conversation.language.comparisons import COMPARATIVES
from recsys.trained.conversation.language.phrases import ORDINALS


def _split_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GOOD = _split_words(
    "appealing better best close closer closest fine fun good great ideal interesting like "
    "liked likes love loved lovely near nearer nearest nearly nice okay perfect promising "
    "right similar tempting favourite favorite prefer preferred yes almost alike likely"
)
_BAD = _split_words(
    "awful bad boring despise dislike disliked dreadful dull enough hate hated horrible less "
    "never no nope not nothing off skip scrap terrible unlike weird without worse worst wrong "
    "avoid ditch exclude lose minus neither nor none rid stop tired sick wary"
)
_ALIKE = frozenset(("like", "similar", "alike"))
_NEGATORS = frozenset(("no", "nope", "not", "nothing", "never", "neither", "nor", "none", "less"))
_PLAIN = _split_words(
    "a about after again all along also am an and another any anything are area as at be been "
    "bit but by can care come comes could cut do does done else ever far feel feels find fan "
    "fancy for from get gets getting give go going got had has have here hmm how i idea if in "
    "into is it its item just keen kind know leave let line lines list little look looking "
    "looks lot lots may maybe me mean mood more most much my need number of oh ok on one ones "
    "or out particularly pick picks please pretty put quite rather really recommend remotely "
    "right say see seem seems should show so some something sort stuff suggest sure take "
    "taste thank thanks that the there these they thing things think this those thought to "
    "too totally try two type up us very want way we well what whatsoever which with wish "
    "would you your"
)
_TOKEN = re.compile(r"#?\d+|[^\W\d_]+(?:['-][^\W\d_]+)*")
_NEGATED = re.compile(r"n't$|^(?:do|does|did|is|are|was|were|ca|wo|would|could|have|has)nt$")
# Words that together mean another thing than each of them.
_TURNED = "|".join(sorted(_BAD - _NEGATORS))
_DOUBLE = re.compile(
    rf"\b(?:not|\w+n't)(?: be| so| too| that| half| at all)* (?:{_TURNED})\b"
    rf"|\b(?:{'|'.join(sorted(_GOOD))}) enough\b"
)
# Who asks what an item is asks for nothing else.
_QUESTION = re.compile(r"(?:is|are|was|were) (?:it|that|this|these|those|they)\b")
_OUT = re.compile(r"\b(?:leave|take|cut)\b.*\bout\b")
_LONGEST = 4  # words of a value
_MOST_WORDS = 14  # of an opinion: a longer one is a sentence


def read_item(part: str, length: int) -> tuple[int, bool] | None:
    """The number of the one item that a part is an opinion on, and whether it is a good one.

    Args:
        part: Of a line.
        length: Of the list.
    """
    words = _split(part)
    numbers = [(place, _parse_number(word)) for place, word in enumerate(words)]
    named = [(place, number) for place, number in numbers if number is not None]
    if len(named) != 1 or not 1 <= named[0][1] <= length:
        return None
    place, number = named[0]
    good = _judge([*words[:place], *words[place + 1 :]])
    return None if good is None else (number, good)


def find_comparative(part: str) -> str | None:
    """The one comparative that a part asks for, such as "older" in "a bit older maybe".

    Args:
        part: Of a line.
    """
    words = _split(part)
    for size in range(min(_LONGEST, len(words)), 0, -1):
        for place in range(len(words) - size + 1):
            phrase = " ".join(words[place : place + size])
            if phrase in COMPARATIVES:
                rest = [*words[:place], *words[place + size :]]
                return phrase if _judge(rest, neutral=True) else None
    return None


def read_value(part: str, columns: ItemColumns) -> HasValue | None:
    """The one value that a part asks for, or is against.

    Args:
        part: Of a line.
        columns: Of the items.
    """
    words = _split(part)
    if len(words) > _MOST_WORDS:
        return None
    for size in range(min(_LONGEST, len(words) - 1), 0, -1):
        for place in range(len(words) - size + 1):
            phrase = words[place : place + size]
            if all(word in _PLAIN or word in _GOOD or word in _BAD for word in phrase):
                continue
            value = columns.find_value(" ".join(phrase))
            if value is None:
                continue
            rest = [*words[:place], *words[place + size :]]
            good = _judge(rest, neutral=True)
            if good is None:
                return None
            return HasValue(value.column, value.values, not good)
    return None


def _split(part: str) -> list[str]:
    plain = part.lower().replace("\u2019", "'")
    return _TOKEN.findall(re.sub(r"(\d+)(?:st|nd|rd|th)\b", r"#\1", plain))


def _parse_number(word: str) -> int | None:
    if word.lstrip("#").isdecimal():
        return int(word.lstrip("#")[:6])
    number = ORDINALS.get(word)
    return number if number is not None and number > 0 else None


def _judge(words: Sequence[str], neutral: bool = False) -> bool | None:
    """Whether words are a good opinion; None where they are none, or say something else as well.

    Args:
        words: Without what the opinion is on.
        neutral: Whether words without an opinion ask for it.
    """
    if not words or len(words) > _MOST_WORDS or _QUESTION.match(" ".join(words)):
        return None
    text = _DOUBLE.sub("good", " ".join(words))
    good, alike, bad, turned = 0, 0, len(_OUT.findall(text)), False
    for word in text.split():
        if _NEGATED.search(word) or word in _BAD:
            bad += 1
            turned |= word not in _BAD - _NEGATORS
        elif word in _ALIKE:
            alike += 1
        elif word in _GOOD:
            good += 1
        elif word.split("'")[0] not in _PLAIN:
            return None
    if bad:
        # "not so good" is bad; "weird comedies are good" says more than that. "Stuff like it" is
        # neither.
        return None if good and not turned else False
    return True if good or alike or neutral else None
