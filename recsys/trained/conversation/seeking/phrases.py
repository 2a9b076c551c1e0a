"""How a scripted seeker puts what it wants.

`SPOKEN` was written for how people talk, not from what a conversation understands
(`language/`): some of it is not understood, or is taken as free text, which is counted. Words of
opinion (`language/cues.py`) came after it, and after a first count.
`PLAIN` has one phrase a kind, each of `docs/chat.md`: what is lost between the two is the price of
not being understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Opinion = Literal["like", "dislike"]
Comparison = Literal["older", "newer", "cheaper", "dearer", "rarer", "commoner"]
Content = Literal["open", "want", "refuse", "hint", "avoid"]
Kind = Opinion | Comparison | Content | Literal["others", "back"]
Phrases = Mapping[Kind, tuple[str, ...]]
"""Templates by what is meant: {n} and {nth} are a number of the list, {v} is a value or word."""

SPOKEN: Phrases = {
    "open": (
        "hi, can you suggest {v}?",
        "I could go for {v}",
        "do you know any good {v}?",
        "looking for {v}, any ideas?",
        "what would you recommend in {v}?",
        "{v}",
        "I'd like {v}",
        "show me {v}",
    ),
    "like": (
        "number {n} comes close",
        "yes, more like that {nth} one",
        "{n} is the right sort of thing",
        "I quite like {n}",
        "{n} looks promising",
        "along the lines of {n}, please",
        "the {nth} one is nearly it",
        "yes, more like {n}",
    ),
    "dislike": (
        "{n} is way off",
        "definitely not {n}",
        "{n} does nothing for me",
        "not keen on {n}",
        "scrap {n}",
        "the {nth} is nothing for me",
        "not {n}",
        "I wouldn't pick {n}",
    ),
    "older": (
        "older",
        "those are all too recent",
        "something from further back",
        "got anything more vintage?",
        "I'd go for an earlier one",
        "a bit older maybe",
        "not so new",
    ),
    "newer": (
        "newer please",
        "more up to date",
        "something from more recent years",
        "these feel dated",
        "a later one would be better",
        "not so old",
    ),
    "cheaper": (
        "cheaper",
        "that's more than I want to spend",
        "easier on the wallet",
        "less pricey",
        "too expensive for me",
    ),
    "dearer": (
        "I can spend more",
        "something more upmarket",
        "pricier is fine",
        "a better, more expensive one",
    ),
    "rarer": (
        "lesser known ones",
        "something off the beaten track",
        "not the ones everybody knows",
        "less mainstream",
        "a hidden gem would be nice",
    ),
    "commoner": (
        "something more people know",
        "better known, please",
        "the big names",
        "more popular ones",
    ),
    "want": (
        "it should be {v}",
        "I'd like some {v} in it",
        "{v} would be great",
        "how about {v}?",
        "is there any {v}?",
        "more in the way of {v}",
        "{v}, please",
    ),
    "refuse": (
        "no {v}",
        "{v} isn't for me",
        "leave out the {v}",
        "I don't care for {v}",
        "please skip the {v}",
        "nothing with {v} in it",
        "I'm not in the mood for {v}",
        "enough with the {v}",
    ),
    "hint": (
        "with {v}",
        "something with {v} in it",
        "it's about {v}",
        "{v} matters to me",
        "must have {v}",
        "{v}",
    ),
    "avoid": (
        "no {v}",
        "not another {v}",
        "I have no use for {v}",
        "less {v}",
        "without {v}",
    ),
    "others": (
        "what else is there?",
        "something else",
        "none of that, try again",
        "anything different?",
        "keep going",
    ),
    "back": (
        "undo",
        "hang on, go back",
        "forget what I just said",
        "scratch that",
        "that was a mistake, take it back",
    ),
}

PLAIN: Phrases = {
    "open": ("{v}",),
    "like": ("more like {n}",),
    "dislike": ("not {n}",),
    "older": ("older",),
    "newer": ("newer",),
    "cheaper": ("cheaper",),
    "dearer": ("more expensive",),
    "rarer": ("less known",),
    "commoner": ("more popular",),
    "want": ("{v}",),
    "refuse": ("no {v}",),
    "hint": ("{v}",),
    "avoid": ("not so {v}",),
    "others": ("something else",),
    "back": ("undo",),
}

JOINTS = ("{a}, {b}", "{a}. {b}", "{a} and {b}", "{a} but {b}")
"""How two things are said in one line."""

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
