"""How a conversation puts things: chips, numbers, what an item's columns say."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.printable import escape_line
from recsys.trained.conversation.critiques import (
    Avoided,
    Bound,
    Critique,
    Disliked,
    HasValue,
    Hidden,
    Liked,
    Said,
    State,
)
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.turns import Chip, ListedItem, name_letter
from recsys.trained.explanations.parts import cut_text

_TITLE = 40  # signs of a text or title in a chip


def write_chips(state: State, model: ConversationModel) -> tuple[Chip, ...]:
    """A chip for each thing that holds, in its order."""
    return tuple(
        Chip(name_letter(place), each.kind, describe(each, model))
        for place, each in enumerate(state.critiques)
    )


def describe(critique: Critique, model: ConversationModel) -> str:
    """What a critique says, short and on one line."""
    if isinstance(critique, Said):
        return f'"{shorten(critique.text)}"'
    if isinstance(critique, Avoided):
        return f'not "{shorten(critique.text)}"'
    if isinstance(critique, Liked | Disliked):
        return f"{critique.kind} {shorten(get_title(model, critique.item))}"
    if isinstance(critique, Hidden):
        return f"{len(critique.items)} hidden"
    if isinstance(critique, HasValue):
        values = " or ".join(critique.values)
        return escape_line(f"{critique.column}: {'not ' * critique.negated}{values}")
    if isinstance(critique, Bound):
        return escape_line(f"{critique.column} {critique.sign} {write_number(critique.value)}")
    return f"variety {critique.level:g}"


def get_title(model: ConversationModel, item: str) -> str:
    """The title of an item, or its text where there is no such column."""
    row = model.rows[item]
    title = model.items["title"][row] if "title" in model.items.columns else None
    return str(title or model.texts[row])


def shorten(text: str) -> str:
    """A text that is short enough for a chip."""
    return cut_text(escape_line(text), _TITLE)


def write_number(value: float) -> str:
    """A number without digits that say nothing."""
    return f"{value:.0f}" if value.is_integer() else f"{value:g}"


def write_value(value: object) -> str:
    """The value of a column on one line; a dash where there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return ", ".join(escape_line(str(each)) for each in value)
    return escape_line(str(value))


def list_facts(state: State, model: ConversationModel, row: int) -> tuple[tuple[str, str], ...]:
    """Columns that filters are of, with values that an item's text does not show."""
    out = {}
    for each in state.list_filters():
        if each.column in model.items.columns:
            value = write_value(model.items[each.column][row])
        else:
            value = write_number(float(model.columns.numbers[each.column].values[row]))
        shown = isinstance(each, HasValue) or value in model.texts[row]
        if not shown:
            out[each.column] = value
    return tuple(out.items())


def describe_item(model: ConversationModel, listed: ListedItem) -> list[str]:
    """All that the columns say of an item, a line each."""
    row = model.items.row(model.rows[listed.item], named=True)
    lines = [f"{listed.number}  {escape_line(listed.text)}"]
    lines += [
        f"   {name}: {write_value(value)}"
        for name, value in row.items()
        if name != "text" and value not in (None, "")
    ]
    return lines


def describe_nothing(state: State, model: ConversationModel) -> str:
    """Which chip to take back, where no item fits all of them."""
    for place in reversed(range(len(state.critiques))):
        critique = state.critiques[place]
        if not isinstance(critique, HasValue | Bound | Hidden):
            continue
        count = int(model.find_fitting(state.drop({place})).sum())
        if count:
            items = "item fits" if count == 1 else "items fit"
            return (
                f"Nothing fits all of this: without {describe(critique, model)} "
                f"(drop {name_letter(place)}), {count:,} {items}."
            )
    return "Nothing fits, whichever one chip is taken back: undo, or drop all."


def join_words(words: Sequence[str], most: int = 6) -> str:
    """Names with commas, the last of many left out."""
    left = len(words) - most
    return ", ".join(words[:most]) + (f" and {left} more" if left > 0 else "")
