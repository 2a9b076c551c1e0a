"""The template of a prompt: lines of text with fields in braces, up to the item that is scored.

All that stands before `{candidate}` is the same for every item of a query.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.errors import ConfigError, nearest

LIKES, DISLIKES, USER, CONTEXT, CANDIDATE = "likes", "dislikes", "user", "context", "candidate"
"""Fields of every template: titles of the history, the user's text, what is known of the moment,
the item."""
FIELDS = (LIKES, DISLIKES, USER, CONTEXT, CANDIDATE)
DEFAULT = """\
About the user: {user}
The user liked, the latest last: {likes}
The user disliked, the latest last: {dislikes}
Now: {context}
Would the user like this next: {candidate}? Answer {yes} or {no}.
Answer:"""
"""Says something with any data: a line of which nothing is known is left out."""
KEY = "architecture.template"


@dataclass(frozen=True)
class Part:
    """A piece of a line.

    Attributes:
        text: What is written, where it is no field.
        field: Name of the field; empty where it is none.
    """

    text: str = ""
    field: str = ""


@dataclass(frozen=True)
class PromptTemplate:
    """A template that was checked.

    Attributes:
        lines: What stands before the item, line by line; the end of a line belongs to it. A line
            whose fields are all empty is left out, but for the last one, in which the item stands.
        tail: What stands behind the item.
    """

    lines: tuple[tuple[Part, ...], ...]
    tail: str

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields before the item."""
        return frozenset(part.field for line in self.lines for part in line if part.field)

    @classmethod
    def parse(cls, template: str, yes: str, no: str, context: Sequence[str]) -> PromptTemplate:
        """Reads a template.

        Args:
            template: Text with names in braces; doubled braces are literal ones.
            yes: What stands for {yes}.
            no: What stands for {no}.
            context: Names of what is known of a query, each of which is a field.

        Raises:
            ConfigError: It is malformed, has an unknown field, not one `{candidate}`, or a field
                behind it.
        """
        parts = _split_parts(template, {"yes": yes, "no": no}, (*FIELDS, *context))
        named = [part.field for part in parts]
        if named.count(CANDIDATE) != 1:
            raise ConfigError(
                f"{KEY} must name {{{CANDIDATE}}}, the item that is scored, exactly once, and "
                f"names it {named.count(CANDIDATE)} times."
            )
        at = named.index(CANDIDATE)
        behind = [name for name in named[at + 1 :] if name]
        if behind:
            raise ConfigError(
                f"{KEY} names {{{behind[0]}}} behind {{{CANDIDATE}}}; put it before: what stands "
                "there is read once for all items of a query."
            )
        tail = "".join(part.text for part in parts[at + 1 :])
        return cls(_split_lines(parts[:at]), tail)


def _split_parts(template: str, words: dict[str, str], known: Sequence[str]) -> list[Part]:
    """Texts and fields in order; words are put in."""
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"{KEY} cannot be read: {error}; write {{{{ for a brace.") from error
    parts: list[Part] = []
    text = ""
    for literal, name, spec, conversion in pieces:
        text += literal
        if name is None:
            continue
        if spec or conversion:
            raise ConfigError(f"{KEY} has a format behind '{name}'; give the name only.")
        if name in words:
            text += words[name]
            continue
        if name not in known:
            raise ConfigError(
                f"{KEY} has the field '{{{name}}}', which is unknown; a column of the interactions "
                "that is known before the user chooses is one once architecture.context lists it."
                f"{nearest(name, (*known, *words))}"
            )
        parts += [Part(text=text), Part(field=name)]
        text = ""
    return [*(part for part in (*parts, Part(text=text)) if part.text or part.field)]


def _split_lines(parts: Sequence[Part]) -> tuple[tuple[Part, ...], ...]:
    """The parts line by line."""
    lines: list[list[Part]] = [[]]
    for part in parts:
        if part.field:
            lines[-1].append(part)
            continue
        *whole, rest = part.text.split("\n")
        for text in whole:
            lines[-1].append(Part(text=text + "\n"))
            lines.append([])
        if rest:
            lines[-1].append(Part(text=rest))
    return tuple(tuple(line) for line in lines)
