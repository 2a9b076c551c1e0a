"""Free text for models that read none: the words of it that are values or titles."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from recsys.trained.conversation.critiques import Disliked, HasValue, Liked
from recsys.trained.conversation.language.phrases import strip_fillers, strip_marks
from recsys.trained.conversation.scoring import ConversationModel

_LONGEST = 4  # words of a value


class ReadWords(NamedTuple):
    """What of a text is used.

    Attributes:
        critiques: Filters of its values, or the item of its title.
        message: A sentence on what is used.
    """

    critiques: tuple[HasValue | Liked | Disliked, ...]
    message: str


def read_words(model: ConversationModel, text: str, avoided: bool) -> ReadWords:
    """What of a free text is used: a title that it is as a whole, else values in it.

    Args:
        model: That reads no texts.
        text: The text.
        avoided: Whether it is what is not wanted.
    """
    item = model.titles.find(text) or model.titles.find(strip_fillers(text))
    if item is not None:
        kind = Disliked if avoided else Liked
        return ReadWords((kind(item),), "This run reads no texts: the title counts as an item.")
    values = tuple(replace(each, negated=avoided) for each in _find_values(model, text))
    if values:
        named = ", ".join(value for each in values for value in each.values)
        return ReadWords(values, f"This run reads no texts: only {named} is used of that.")
    columns = ", ".join(model.columns.values)
    of = f" or a value of {columns}" if columns else ""
    return ReadWords(
        (), f"This run reads no texts, and that is no title{of}: name an item that you like."
    )


def _find_values(model: ConversationModel, text: str) -> list[HasValue]:
    """Values that stand in a text, the longest first where they overlap."""
    words = strip_marks(text).split()
    found: dict[HasValue, None] = {}
    place = 0
    while place < len(words):
        for size in range(min(_LONGEST, len(words) - place), 0, -1):
            value = model.columns.find_value(" ".join(words[place : place + size]))
            if value is not None:
                found[value] = None
                place += size - 1
                break
        place += 1
    return list(found)
