"""A conversation: a line after the other, each of which refines a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recsys.printable import escape_line
from recsys.trained.conversation import wording
from recsys.trained.conversation.critiques import State
from recsys.trained.conversation.editing import Draft, Editor
from recsys.trained.conversation.language.grammar import Setting, parse_line
from recsys.trained.conversation.scoring import ConversationModel, Ranked
from recsys.trained.conversation.turns import ListedItem, Turn

SIZE = 10
"""Items of a list, unless another number is asked for."""
CHARACTERS = 1000
"""Of a line that are read."""
EMPTY = "Say what you are looking for, or help."


@dataclass(frozen=True)
class Snapshot:
    """What one can go back to.

    Attributes:
        state: Where the conversation was.
        items: The whole list, all pages.
        fitting: How many items fit.
        said: The line that led away from it.
    """

    state: State
    items: tuple[ListedItem, ...]
    fitting: int
    said: str = ""


class Conversation:
    """Someone who refines a list, a line at a time.

    Nothing but the lines and the model decides what it says: the same lines have the same lists.

    Args:
        model: What ranks; it may serve other conversations as well.
        size: Items of a list, and of each further page.

    Attributes:
        model: As given.
        size: As given.
    """

    def __init__(self, model: ConversationModel, size: int = SIZE) -> None:
        self.model, self.size = model, size
        self._editor = Editor(model)
        fitting = int(model.find_fitting(State()).sum())
        self._now = Snapshot(State(), (), fitting)
        self._past: list[Snapshot] = []
        self._turns = 0

    @property
    def state(self) -> State:
        """Where it is."""
        return self._now.state

    @property
    def items(self) -> tuple[ListedItem, ...]:
        """The whole list, all of its pages."""
        return self._now.items

    @property
    def fitting(self) -> int:
        """How many items fit."""
        return self._now.fitting

    def open(self) -> Turn:
        """Turn 0: a list where something is known of the one who speaks, else none."""
        if self.model.start is None:
            return self._make_turn("", Draft(self.state, ()), ())
        draft = Draft(self.state, ())
        self._now = self._list(draft)
        return self._make_turn("", draft, self._now.items)

    def say(self, line: str) -> Turn:
        """What a line leads to. What is said raises no error: a sentence of the turn says so.

        Args:
            line: Whatever was typed; line breaks count as blanks.
        """
        said, draft = " ".join(escape_line(line).split()), Draft(self.state, self.items)
        if len(said) > CHARACTERS:
            said = said[:CHARACTERS].rstrip()
            draft.messages.append(f"Only the first {CHARACTERS:,} characters are read.")
        self._turns += 1
        setting = Setting(self.model.columns, self.model.titles, len(self.items))
        actions = parse_line(said, setting)
        if not actions:
            draft.messages.append(EMPTY)
        for action in actions:
            self._editor.apply(action, draft)
        return self._make_turn(said, draft, self._update(said, draft))

    def resume(self, turns: Sequence[Turn]) -> None:
        """Goes on behind the turns of an earlier conversation with the same model.

        Args:
            turns: All of them, turn 0 included.
        """
        for turn in turns:
            known = {each.number: each for each in (*self.items, *turn.items)}
            items = tuple(known[number] for number in range(1, len(turn.state.listed) + 1))
            if turn.undone:
                self._past.pop()
            elif self._moves(turn.state) and turn.number:
                self._past.append(replace(self._now, said=turn.said))
            self._now = Snapshot(turn.state, items, turn.fitting)
            self._turns = turn.number

    def _moves(self, state: State) -> bool:
        """Whether a state is one that undo would lead away from."""
        now = self.state
        return (state.critiques, state.listed) != (now.critiques, now.listed)

    def _update(self, said: str, draft: Draft) -> tuple[ListedItem, ...]:
        """Goes on to what a line has led to; gives what of the list is to be shown."""
        before = self._now
        shown: tuple[ListedItem, ...] = ()
        if draft.command == "undo":
            return self._undo(draft)
        if draft.state.critiques != before.state.critiques:
            self._now = self._list(draft)
            shown = self._now.items
        elif draft.command == "more":
            self._now = self._list(draft, before.items)
            shown = self._now.items[len(before.items) :]
            if not shown:
                draft.messages.append("That is all that fits." if before.items else EMPTY)
        else:
            self._now = replace(before, state=draft.state)
            if draft.command == "again":
                shown = before.items
        after = self.state
        if (after.critiques, after.listed) != (before.state.critiques, before.state.listed):
            self._past.append(replace(before, said=said))
        return shown

    def _undo(self, draft: Draft) -> tuple[ListedItem, ...]:
        """Goes back by one line that changed something."""
        if not self._past:
            draft.messages.append("There is nothing to undo.")
            draft.command = ""
            return ()
        self._now = self._past.pop()
        draft.messages.append(f'Undid "{wording.shorten(self._now.said)}".')
        return self._now.items

    def _list(self, draft: Draft, pages: tuple[ListedItem, ...] = ()) -> Snapshot:
        """A list by what holds now, or the pages of the old one and another one.

        Args:
            draft: What a line has led to.
            pages: What stands on the list already.
        """
        state = replace(draft.state, listed=tuple(each.item for each in pages))
        if not state.critiques and not pages and self.model.start is None:
            fitting = int(self.model.find_fitting(state).sum())
            return Snapshot(replace(state, focus=None), (), fitting)
        ranked = self.model.rank(state, self.size)
        items = (*pages, *self._make_items(state, ranked, len(pages)))
        if not items:
            draft.messages.append(wording.describe_nothing(state, self.model))
        listed = tuple(each.item for each in items)
        focus = state.focus if pages else None
        return Snapshot(replace(state, listed=listed, focus=focus), items, ranked.fitting)

    def _make_items(self, state: State, ranked: Ranked, before: int) -> list[ListedItem]:
        kinds, out = [part.kind for part in ranked.parts], []
        for place, row in enumerate(ranked.rows.tolist()):
            added = zip(kinds, ranked.added[:, place].tolist(), strict=True)
            out.append(
                ListedItem(
                    number=before + place + 1,
                    item=self.model.ids[row],
                    text=self.model.texts[row],
                    score=round(float(ranked.scores[place]), 6),
                    parts=tuple((kind, round(value, 6)) for kind, value in added),
                    facts=wording.list_facts(state, self.model, row),
                )
            )
        return out

    def _make_turn(self, said: str, draft: Draft, shown: tuple[ListedItem, ...]) -> Turn:
        return Turn(
            number=self._turns,
            said=said,
            message=" ".join(draft.messages),
            lines=tuple(draft.lines),
            items=shown,
            chips=wording.write_chips(self.state, self.model),
            fitting=self.fitting,
            state=self.state,
            undone=draft.command == "undo",
            ended=draft.command == "quit",
        )
