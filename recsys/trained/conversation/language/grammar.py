"""What a line means: commands, critiques, and free text where it is none of them.

The rules, in their order; `docs/chat.md` states them for readers:

1. A line in quotes is free text.
2. A whole line that is a command is that command, and one that is a value of a column is a filter.
3. A whole line that is a title of the catalog is free text.
4. A line is cut at commas, semicolons, full stops, "but" and "not": each part is a critique or
   text. Parts that are text stay as they were written.
5. A part that names one item, value or comparative beside nothing but words of opinion is an
   opinion on that (`cues`).
6. Of a text, only what can hardly mean anything else is cut: years, decades, amounts of money, and
   "no VALUE" or "without VALUE" at its end. "space comedy" is text, "comedy" is a filter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsys.trained.conversation.columns import ItemColumns
from recsys.trained.conversation.critiques import Avoided, HasValue, Said
from recsys.trained.conversation.language.actions import (
    Action,
    Add,
    Describe,
    Drop,
    Explain,
    Judge,
    Name,
    Opinion,
    Refuse,
    Simple,
    Vary,
)
from recsys.trained.conversation.language.comparisons import cut_comparison, parse_comparison
from recsys.trained.conversation.language.cues import find_comparative, read_item, read_value
from recsys.trained.conversation.language.phrases import (
    parse_numbers,
    parse_which,
    strip_fillers,
    strip_marks,
)
from recsys.trained.conversation.titles import TitleFinder

_COMMANDS: dict[str, Name] = {
    **dict.fromkeys(("help", "?", "h", "commands"), "help"),
    **dict.fromkeys(("quit", "exit", "bye", "goodbye", "q", ":q"), "quit"),
    **dict.fromkeys(("undo", "back", "go back", "u"), "undo"),
    **dict.fromkeys(("more", "show more", "show me more", "next", "next page"), "more"),
    **dict.fromkeys(("reset", "start over", "new search", "clear", "restart"), "reset"),
    **dict.fromkeys(("chips", "filters", "what do you know"), "chips"),
    **dict.fromkeys(("list", "again", "show the list", "show list"), "again"),
    **dict.fromkeys(("something else", "anything else", "others", "no", "none"), "others"),
    **dict.fromkeys(("other ones", "different ones", "new ones", "nope"), "others"),
    **dict.fromkeys(
        ("thanks", "thank you", "yes", "ok", "okay", "great", "good", "cool"), "thanks"
    ),
}
_VARIETY = {
    **dict.fromkeys(("more variety", "more diverse", "more varied", "more diversity"), 1),
    **dict.fromkeys(("too similar", "too much alike", "too alike", "all the same"), 1),
    **dict.fromkeys(("too different", "too varied", "too diverse"), -1),
    **dict.fromkeys(("something different", "surprise me", "mix it up", "more different"), 1),
    **dict.fromkeys(("less variety", "less diverse", "less varied", "less diversity"), -1),
    **dict.fromkeys(("more of the same", "more alike", "more similar", "closer"), -1),
}
_WHY = re.compile(
    r"(?:why|explain)(?: (?:is|was|did you (?:show|suggest)|that|this|it))*(?: (.+))?$"
)
_SUBJECT = re.compile(r"^(?:these|those|they|this|it|that)(?: are|'re| is|'s)? (?:all )?")
_IN_WORDS = re.compile(r",? (?:in words|word by word)$")
_SHOW = re.compile(r"(?:(?:show|details?(?: of)?|tell me about|what is|describe) )?(?:the )?(.+)$")
_DROP = re.compile(
    r"(?:drop|take back|remove|forget|delete|without chip|undo) (.+)$", re.IGNORECASE
)
_LETTERS = re.compile(r"[a-z]{1,2}(?:[, ]+(?:and )?[a-z]{1,2})*$")
_ANY = re.compile(r"any (.+)$", re.IGNORECASE)
_DISLIKE = re.compile(
    r"(?:i(?:'m| am)? )?(?:(?:do not|don'?t|did not|didn'?t|not) (?:like|want|care for|enjoy)"
    r"|not (?:into|in the mood for|a fan of)|tired of|sick of|fed up with"
    r"|can'?t stand|enough of|less of|nothing of"
    r"|disliked?|hated?|less like|nothing like|not like|unlike|none of|neither|not|no to|nor|no"
    r"|-(?=\d))(?:(?<=-)|\s)(?:(?:the|numbers?) )?(.+)$",
    re.IGNORECASE,
)
_LIKE = re.compile(
    r"(?:yes,? ?)?(?:i )?(?:(?:really |also )?(?:like|liked|love|loved|enjoyed|prefer)"
    r"|more like|similar to|something like|closer to|yes to|like|more of|\+(?=\d))"
    r"(?:(?<=\+)|\s)(?:(?:the|numbers?|films?|movies?|items?) )?(.+)$",
    re.IGNORECASE,
)
_VERDICT = re.compile(
    r"(.+?),? (?:(?:is|are|was|were|looks?|sounds?|seems?)(?: (?:really|very|pretty|quite|so|too"
    r"|more|rather))* )?(?:(?P<good>yes|good|great|nice|perfect|closer?|fine|interesting|better"
    r"|right|like it|what i (?:want|like))|no|bad|boring|wrong|not for me|terrible|awful|worse)$",
    re.IGNORECASE,
)
_BUT = re.compile(
    r"^(?:any(?:thing|one)?|everything|all|something)(?: else)? (?:but|except)(?: for)? (?=\S)",
    re.IGNORECASE,
)
_SEEN = re.compile(
    r"(?:yes,? )?(?:i(?:'ve| have)? )?(?:already )?(?:seen|saw|had|have|own|know|read|watched"
    r"|bought|hide|skip)(?: already)? (.+?)(?: already)?$",
    re.IGNORECASE,
)
_AVOID = re.compile(
    r"(?:no|not|without|nothing with|nothing|less|avoid|except|exclude|not so|not too"
    r"|other than|besides|apart from|too) "
    r"(?:any |a |so |too |very )?(.+)$",
    re.IGNORECASE,
)
_HAS = re.compile(
    r"(by|with|from|of|in|starring|directed by|written by|made by|more) (.+)$", re.IGNORECASE
)
_CUT_VALUE = re.compile(
    r"\b(?:but )?(no|not|without|nothing with|starring|directed by|written by|by)"
    r" (\S+(?: \S+){0,3})$",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r"((?:\s*[,;]\s*|[.!?]\s+|\s+(?=but\s))(?:(?:but|and)\s+)?"
    # "I'm not into horror" and "2 is not for me" are one part each
    r"|(?<!'m)(?<!\bam)(?<!\bis)(?<!\bare)(?<!\bdo)(?<!\bdid)\s+(?=not\s)"
    r"|\s+(?=without\s|[+-]\d))",
    re.IGNORECASE,
)
_COLUMNS = {
    **dict.fromkeys(("starring", "with"), ("star", "actor", "cast")),
    "directed by": ("director",),
    "written by": ("writer", "author"),
    "made by": ("maker", "brand", "studio"),
    "by": ("author", "artist", "director", "brand", "maker", "writer"),
}
"""Columns that a word before a value is of."""
_QUOTED = re.compile(r'^["\u201c\u201e](.+)["\u201c\u201d]$', re.DOTALL)
_LEAST_YEAR = 1000
_EMPTY = (
    *("yes", "yeah", "no", "nope", "ok", "okay", "please", "thanks", "thank you"),
    *("but", "and", "well", "hmm", "then", "hi", "hello", "hey"),
)
_MOST_WORDS = 4  # of what is avoided: a longer one is a sentence


@dataclass(frozen=True)
class Setting:
    """What a line is read with.

    Attributes:
        columns: Of the items.
        titles: Of the items.
        length: Of the list.
    """

    columns: ItemColumns
    titles: TitleFinder
    length: int


def parse_line(line: str, setting: Setting) -> list[Action]:
    """What a line asks for, in its order; nothing of an empty line.

    Args:
        line: As it was typed, on one line.
        setting: What it is read with.
    """
    plain = line.strip().replace("\u2019", "'")
    plain = _BUT.sub("no ", plain)
    quoted = _QUOTED.match(plain)
    if quoted is not None and quoted[1].strip():
        return [Add(Said(quoted[1].strip()))]
    if not strip_marks(plain) and plain != "?":
        return []
    command, value = _parse_command(plain), _parse_value(strip_fillers(plain), setting)
    if command is not None and (value is None or command != [Simple("thanks")]):
        return command
    if value is not None:
        return value
    if setting.titles.find(plain) is not None and parse_numbers(plain) is None:
        return [Add(Said(plain))]
    return _parse_parts(plain, setting)


def _parse_command(line: str) -> list[Action] | None:
    """A command that is a whole line."""
    plain = (strip_marks(line) or line).lower()
    plain = re.sub(r"^(?:please|ok|okay)[, ]+|[, ]+(?:please|thanks)$", "", plain)
    if plain in _COMMANDS:
        return [Simple(_COMMANDS[plain])]
    variety = _VARIETY.get(_SUBJECT.sub("", plain))
    if variety is not None:
        return [Vary(variety)]
    wordless = _IN_WORDS.sub("", plain)
    why = _WHY.match(wordless)
    if why is not None:
        numbers = parse_numbers(why[1]) if why[1] else None
        if numbers is not None or not why[1] or parse_which(why[1]) == "focus":
            return [Explain(numbers[0] if numbers else None, wordless != plain)]
    show = _SHOW.match(plain)
    numbers = None if show is None else parse_numbers(show[1])
    if numbers is not None and len(numbers) == 1 and numbers[0] < _LEAST_YEAR:
        return [Describe(numbers[0])]
    drop = _DROP.match(plain)
    if drop is not None and parse_numbers(drop[1]) is not None:
        return [Judge("seen", numbers=parse_numbers(drop[1]) or ())]
    several = drop is not None and "," in drop[1] and not _LETTERS.match(drop[1])
    if drop is not None and not several and len(drop[1].split()) <= _MOST_WORDS:
        return [Drop(drop[1])]
    return None


def _parse_parts(line: str, setting: Setting) -> list[Action]:
    """A line cut into parts, each of which is critiques or text."""
    pieces = _PARTS.split(line)
    actions: list[Action] = []
    texts: list[str] = []  # pieces of text that stand side by side, with what stands between them
    opinion: Opinion | None = None
    for place in range(0, len(pieces), 2):
        part, between = pieces[place], pieces[place - 1] if place else ""
        if strip_marks(part).lower() in _EMPTY or not strip_marks(part):
            continue
        read = _parse_part(part, setting, opinion)
        if read is None:
            texts += [between if texts else "", part]
            opinion = None
            continue
        if texts:
            actions.append(Add(Said(strip_marks("".join(texts)))))
            texts = []
        actions += read
        last = read[-1]
        opinion = last.opinion if isinstance(last, Judge) else None
    if texts:
        actions.append(Add(Said(strip_marks("".join(texts)))))
    return actions


def _parse_part(part: str, setting: Setting, opinion: Opinion | None) -> list[Action] | None:
    """What a part of a line asks for; None where it is nothing but text.

    Args:
        part: Of a line.
        setting: What it is read with.
        opinion: That of the part before, which numbers alone go on with.
    """
    whole = _parse_phrase(part, setting, opinion)
    if whole is not None:
        return whole
    halves = re.split(r"\s+(?:and|&)\s+", part)
    if len(halves) > 1:
        read = [_parse_phrase(half, setting, opinion) for half in halves]
        if all(each is not None for each in read):
            return [action for each in read for action in each or ()]
        first = read[0]
        if first is not None and isinstance(first[0], Judge) and first[0].numbers:
            rest = part[len(halves[0]) :].split(None, 1)[1]  # "3 is fine and with strings"
            return [*first, *(_parse_part(rest, setting, None) or [Add(Said(strip_marks(rest)))])]
    cut = _cut_value(part, setting) or cut_comparison(part, setting.columns, setting.length)
    if cut is None:
        return None
    rest, actions = cut
    if not strip_fillers(rest):
        return actions
    inner = _parse_part(rest, setting, None)
    return [*([Add(Said(strip_marks(rest)))] if inner is None else inner), *actions]


def _parse_phrase(part: str, setting: Setting, opinion: Opinion | None) -> list[Action] | None:
    """A part that is a critique as a whole, or None."""
    plain, short = strip_marks(part), strip_fillers(part)
    if setting.titles.find(plain) is not None and parse_numbers(plain) is None:
        return None if opinion is None else _judge(opinion, plain, setting)
    read = _parse_judgement(plain, setting)
    if read is None and opinion is not None:
        read = _judge(opinion, plain, setting)
    if read is None:
        any_of = _ANY.match(plain)
        if any_of is not None and setting.columns.find_column(any_of[1]) is not None:
            return [Drop(any_of[1], column=True)]
    command = None if read is not None or not short else _parse_command(plain)
    if read is None and command is not None and isinstance(command[0], Vary | Drop):
        return command
    for text in dict.fromkeys((plain, short)) if read is None else ():
        read = read or parse_comparison(text, setting.columns, setting.length)
    return (
        read
        or _parse_value(short, setting)
        or _parse_cues(plain, setting)
        or _parse_avoided(plain, setting)
    )


def _parse_cues(part: str, setting: Setting) -> list[Action] | None:
    """An opinion on one item of the list or one value, in words of the speaker's own."""
    item = read_item(part, setting.length)
    if item is not None:
        return [Judge("liked" if item[1] else "disliked", numbers=(item[0],))]
    value = read_value(part, setting.columns)
    if value is not None:
        return [Add(value)]
    phrase = find_comparative(part)
    return None if phrase is None else parse_comparison(phrase, setting.columns, setting.length)


def _parse_judgement(part: str, setting: Setting) -> list[Action] | None:
    """Likes, dislikes and what someone had, by numbers, titles or values."""
    verdict = _VERDICT.match(part)
    if verdict is not None and (parse_numbers(verdict[1]) or parse_which(verdict[1])):
        return _judge("liked" if verdict["good"] else "disliked", verdict[1], setting)
    for pattern, opinion in ((_DISLIKE, "disliked"), (_LIKE, "liked"), (_SEEN, "seen")):
        match = pattern.match(part)
        if match is None:
            continue
        read = _judge(opinion, match[1], setting)  # type: ignore[arg-type]
        if read is not None:
            return read
        value = _parse_value(strip_fillers(match[1]), setting) if opinion != "seen" else None
        if value is not None:
            return _negate(value) if opinion == "disliked" else value
    return None


def _judge(opinion: Opinion, text: str, setting: Setting) -> list[Action] | None:
    """An opinion on what a text names, or None where it names nothing."""
    which = parse_which(text)
    if which is not None:
        return [Judge(opinion, which=which)]
    numbers = parse_numbers(text)
    if numbers is not None:
        return [Judge(opinion, numbers=numbers)]
    items = [setting.titles.find(text)]
    if items[0] is None:
        items = [setting.titles.find(each) for each in re.split(r"\s+(?:and|or|&)\s+", text)]
    if any(item is None for item in items):
        return None
    return [Judge(opinion, items=tuple(item for item in items if item is not None))]


def _parse_value(text: str, setting: Setting) -> list[Action] | None:
    """A filter by values: "comedies", "comedy and action", "comedy or drama", "genre: comedy"."""
    own = _find_value(text, setting.columns)
    if own is not None:
        return [Add(own)]
    for word, several in ((r"\s+or\s+", False), (r"\s+(?:and|&)\s+|\s*,\s*", True)):
        parts = [_find_value(strip_fillers(each), setting.columns) for each in re.split(word, text)]
        found = [each for each in parts if each is not None]
        if len(parts) < 2 or len(found) < len(parts):
            continue
        if several:
            return [Add(each) for each in found]
        if len({each.column for each in found}) == 1:
            return [Add(replace(found[0], values=tuple(v for each in found for v in each.values)))]
    return None


def _find_value(text: str, columns: ItemColumns) -> HasValue | None:
    """The value that a phrase names, with or without the name of its column."""
    own = columns.find_value(text)
    if own is not None:
        return own
    first, _, rest = text.partition(" ")
    column = columns.find_column(first.rstrip(":="))
    if column is not None and rest:
        return columns.find_value(strip_fillers(rest), column)
    match = _HAS.match(text)
    return None if match is None else _find_named(match[1], match[2], columns)


def _find_named(word: str, text: str, columns: ItemColumns) -> HasValue | None:
    """The value behind a word such as "starring", in a column that is of the word if it can be."""
    phrase = strip_fillers(text)
    for name in _COLUMNS.get(word.lower(), ()):
        column = columns.find_column(name)
        value = None if column is None else columns.find_value(phrase, column)
        if value is not None:
            return value
    return columns.find_value(phrase)


def _negate(actions: Sequence[Action]) -> list[Action]:
    """Filters turned round."""
    return [
        Add(replace(each.critique, negated=True))
        if isinstance(each, Add) and isinstance(each.critique, HasValue)
        else each
        for each in actions
    ]


def _parse_avoided(part: str, setting: Setting) -> list[Action] | None:
    """What is not wanted: a value of a column, else a text of a few words."""
    match = _AVOID.match(part)
    if match is None:
        return None
    value = _parse_value(strip_fillers(match[1]), setting)
    if value is not None:
        return _negate(value)
    words = strip_fillers(match[1])
    bounds = parse_comparison(words, setting.columns, setting.length)
    if bounds is not None:
        return [Refuse(f"Say what it is to be instead of no '{words}', as in \"before 1980\".")]
    long = len(words.split()) > _MOST_WORDS
    if not words or words.lower() in _EMPTY or long or re.search(r"\d", words):
        return None
    return [Add(Avoided(words))]


def _cut_value(part: str, setting: Setting) -> tuple[str, list[Action]] | None:
    """A value behind "no", "without" or "by" at the end of a text, and the text before it."""
    match = _CUT_VALUE.search(part)
    value = None if match is None else _find_named(match[1], match[2], setting.columns)
    if match is None or value is None:
        return None
    negated = not match[1].lower().endswith(("by", "starring"))
    return part[: match.start()].strip(), [Add(replace(value, negated=negated))]
