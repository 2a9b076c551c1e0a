"""What one action of a line does to the state of a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.trained.conversation import reasons, wording
from recsys.trained.conversation.columns import normalize
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
    Variety,
)
from recsys.trained.conversation.language.actions import (
    FOCUS,
    LAST,
    Action,
    Add,
    Compare,
    Describe,
    Drop,
    Explain,
    Judge,
    Refuse,
    Simple,
    Vary,
)
from recsys.trained.conversation.language.plain_words import read_words
from recsys.trained.conversation.manual import write_help
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.turns import ListedItem, name_letter

_NO_LIST = "There is no list yet: say what you are looking for."
_EMPTY_LIST = "The list is empty: drop what does not fit, or undo."
_AROUND = ("and", "chip", "chips", "filter", "the")
STEP, HIGHEST = 0.25, 0.75
"""By how much a list becomes more varied, and how far."""


@dataclass
class Draft:
    """What a line has led to so far.

    Attributes:
        state: Where the conversation is.
        items: The list that the line speaks of.
        messages: Sentences on what happened.
        lines: What was asked for.
        command: What is left to do with the list: more, others, again, undo or quit.
    """

    state: State
    items: tuple[ListedItem, ...]
    messages: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    command: str = ""


class Editor:
    """Applies actions.

    Args:
        model: That ranks.
    """

    def __init__(self, model: ConversationModel) -> None:
        self._model = model

    def apply(self, action: Action, draft: Draft) -> None:
        """Applies one action; what cannot be done is said in a sentence, and changes nothing."""
        match action:
            case Simple():
                self._run(action, draft)
            case Add(critique):
                self._add(critique, draft)
            case Judge():
                self._judge(action, draft)
            case Compare():
                self._compare(action, draft)
            case Vary(steps):
                self._vary(steps, draft)
            case Drop():
                self._drop(action, draft)
            case Explain():
                self._explain(action, draft)
            case Describe(number):
                listed = self._find_item(number, draft)
                if listed is not None:
                    draft.state = replace(draft.state, focus=listed.number)
                    draft.lines += wording.describe_item(self._model, listed)
            case Refuse(message):
                draft.messages.append(message)

    def _run(self, action: Simple, draft: Draft) -> None:
        """A command without anything else."""
        match action.name:
            case "help":
                draft.lines += write_help(self._model)
            case "chips":
                chips = wording.write_chips(draft.state, self._model)
                draft.lines += [f"[{chip.letter}] {chip.text}" for chip in chips]
                if not chips:
                    draft.messages.append("Nothing holds yet.")
            case "thanks":
                draft.messages.append("Say what to change, more, or quit.")
            case "reset":
                draft.state = State()
                draft.messages.append("Started over; undo takes that back.")
            case "others":
                self._hide([each.item for each in draft.items], draft)
            case name:
                draft.command = name

    def _add(self, critique: Critique, draft: Draft) -> None:
        """One more thing that holds."""
        text = critique.text if isinstance(critique, Said | Avoided) else None
        if text is not None and not self._model.reads_texts:
            read = read_words(self._model, text, isinstance(critique, Avoided))
            draft.messages.append(read.message)
            for each in read.critiques:
                self._add(each, draft)
            return
        several = True
        if isinstance(critique, HasValue):
            several = self._model.columns.values[critique.column].several
        draft.state = draft.state.add(critique, several)

    def _judge(self, action: Judge, draft: Draft) -> None:
        """Likes, dislikes and what is hidden."""
        items = list(action.items)
        if action.which == "all":
            items += [each.item for each in draft.items]
            if not draft.items:
                self._refuse_number(0, draft)
        numbers = [FOCUS] if action.which == "focus" else action.numbers
        for number in numbers:
            listed = self._find_item(number, draft)
            if listed is not None:
                items.append(listed.item)
                draft.state = replace(draft.state, focus=listed.number)
        if action.opinion == "seen":
            self._hide(items, draft)
            return
        for item in items:
            kind = Liked if action.opinion == "liked" else Disliked
            draft.state = draft.state.add(kind(item))

    def _hide(self, items: Iterable[str], draft: Draft) -> None:
        """Leaves items out, all in one chip."""
        old = next((e for e in draft.state.critiques if isinstance(e, Hidden)), Hidden(()))
        fresh = tuple(dict.fromkeys((*old.items, *items)))
        if fresh != old.items:
            kept = tuple(each for each in draft.state.critiques if each != old)
            draft.state = replace(draft.state, critiques=(*kept, Hidden(fresh)))

    def _compare(self, action: Compare, draft: Draft) -> None:
        """A bound at an item of the list, at the middle of the list, or of the catalog."""
        values = self._model.columns.numbers[action.column].values
        if action.number is not None:
            listed = self._find_item(action.number, draft)
            if listed is None:
                return
            place = self._model.rows[listed.item]
            middle, whose = float(values[place]), f"{listed.number} has"
            draft.state = replace(draft.state, focus=listed.number)
        else:
            rows = [self._model.rows[each.item] for each in draft.items]
            own = values[rows] if rows else values
            known = own[~np.isnan(own)]
            middle = float(np.median(known)) if len(known) else np.nan
            whose = "the list has" if rows else "the items have"
        if np.isnan(middle):
            draft.messages.append(f"{whose.capitalize()} no {action.column} to compare with.")
            return
        draft.state = draft.state.add(Bound(action.column, action.sign, middle))

    def _vary(self, steps: int, draft: Draft) -> None:
        level = min(HIGHEST, max(0.0, draft.state.variety + steps * STEP))
        if level == draft.state.variety:
            what = "varied" if steps > 0 else "alike"
            draft.messages.append(f"The list is as {what} as it can be.")
            return
        draft.state = draft.state.add(Variety(level))

    def _drop(self, action: Drop, draft: Draft) -> None:
        """Takes chips back."""
        places = set(self._find_chips(action, draft.state))
        if not places:
            chips = wording.write_chips(draft.state, self._model)
            shown = ", ".join(f"{chip.letter}: {chip.text}" for chip in chips)
            draft.messages.append(
                f"There is no chip '{wording.shorten(action.target)}' (there are {shown})."
                if chips
                else "There is no chip to take back."
            )
            return
        taken = [wording.describe(draft.state.critiques[n], self._model) for n in sorted(places)]
        draft.state = draft.state.drop(places)
        draft.messages.append(f"Took back {wording.join_words(taken)}.")

    def _find_chips(self, action: Drop, state: State) -> list[int]:
        """Places of the chips that letters, a column, a value or a text name."""
        target = action.target.strip().strip('"\u201c\u201d')
        if not action.column:
            if normalize(target) in ("all", "everything", "all chip", "all filter"):
                return list(range(len(state.critiques)))
            letters = {name_letter(n): n for n in range(len(state.critiques))}
            words = target.lower().replace(",", " ").split()
            words = [
                each for each in words if each not in ("and", "chip", "chips", "filter", "the")
            ]
            if words and all(each in letters for each in words):
                return [letters[each] for each in words]
        column = self._model.columns.find_column(target)
        value = None if action.column else self._model.columns.find_value(target)
        return [
            place
            for place, each in enumerate(state.critiques)
            if (isinstance(each, HasValue | Bound) and each.column == column)
            or (isinstance(each, HasValue) and value and value.values[0] in each.values)
            or (isinstance(each, Said | Avoided) and normalize(each.text) == normalize(target))
        ]

    def _explain(self, action: Explain, draft: Draft) -> None:
        """Why an item stands on the list."""
        listed = self._find_item(FOCUS if action.number is None else action.number, draft)
        if listed is None:
            return
        draft.state = replace(draft.state, focus=listed.number)
        draft.lines += reasons.explain_item(self._model, draft.state, listed)
        if action.words:
            words = reasons.list_words(self._model, draft.state, listed)
            draft.lines += words
            if not words:
                draft.messages.append("No words of texts are told apart in this score.")

    def _find_item(self, number: int, draft: Draft) -> ListedItem | None:
        """An item by number, the `LAST` one, or the `FOCUS`, which begins as the first."""
        if not draft.items:
            self._refuse_number(number, draft)
            return None
        if number == FOCUS:
            number = draft.state.focus or 1
        if number == LAST:
            number = len(draft.items)
        if not 1 <= number <= len(draft.items):
            self._refuse_number(number, draft)
            return None
        return draft.items[number - 1]

    def _refuse_number(self, number: int, draft: Draft) -> None:
        size = len(draft.items)
        has = f"which has {size} item{'s' * (size != 1)}"
        draft.messages.append(
            f"There is no {number} on the list, {has}."
            if size
            else _EMPTY_LIST
            if draft.state.critiques
            else _NO_LIST
        )
