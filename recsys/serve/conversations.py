"""Conversations over HTTP: the client holds what was said, the service only what it may forget.

The same lines have the same lists, so that all that was said so far stands in each request, and a
conversation outlives a newer model, a restart, and another process that answers it. What the
service keeps of one, so that it does not hear it all again, is bounded in number and age, lies in
memory alone, and changes no answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recsys.errors import ConfigError, RecsysError
from recsys.trained.conversation.conversation import Conversation
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.explanations.explaining import Explaining
from recsys.trained.queries import Answering, Query

KEPT, SECONDS = 256, 3600.0
"""How many conversations are kept, and how long one that nobody goes on with."""
_BEGINNINGS = 32


class OutdatedListError(RecsysError):
    """The lines so far lead to another list than the one that the client has."""

    def __init__(self) -> None:
        super().__init__(
            "the model or its items have changed since that list; send the lines before, with "
            "list as the last one and without listed, to have the new one."
        )


@dataclass(frozen=True)
class Lines:
    """What was said, with all that decides what is answered but who asks.

    Attributes:
        said: The lines, the oldest first; none: the conversation is opened.
        listed: Ids on the list that the last line speaks of, as its client has it; None: it does
            not say.
        left_out: Ids of items that are never listed.
    """

    said: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Beginning:
    """What a conversation begins with.

    Attributes:
        start: A user or a history; None: neither.
        at: The moment.
        context: Column and value of each that is given, sorted.
        left_out: Ids of items that are never listed.
    """

    start: Query | None
    at: str
    context: tuple[tuple[str, str], ...]
    left_out: frozenset[str]


_Key = tuple[Beginning, int, tuple[str, ...]]


class Conversations:
    """Conversations with one model; one thread asks.

    Args:
        answering: The model.
        notes: Where it leaves sentences on what of a question counts as unknown.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        answering: Answering,
        notes: list[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answering, self._notes, self._clock = answering, notes, clock
        self._model: ConversationModel | None = None
        self._begun: dict[Beginning, tuple[ConversationModel, list[str]]] = {}
        self._kept: dict[_Key, tuple[float, Conversation]] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def answer(self, beginning: Beginning, lines: Lines, size: int) -> Mapping[str, Any]:
        """What the last line leads to, behind those before it.

        Args:
            beginning: Who asks, and when.
            lines: What was said.
            size: Items of a list.

        Returns:
            The turn, as `Turn.to_json` has it, with the moment and the size of the catalog.

        Raises:
            ConfigError: The model holds no conversation, or knows nothing of the context.
            DataError: An id is unknown, or nothing can be had at that moment.
            OutdatedListError: The lines before lead to another list.
        """
        model, notes = self._begin(beginning)
        self._notes[:] = notes
        before = lines.said[:-1]
        conversation = self._take((beginning, size, before))
        if conversation is None:
            conversation = Conversation(model, size)
            turn = conversation.open()
            for line in before:
                conversation.say(line)
        if lines.listed is not None and conversation.state.listed != lines.listed:
            self._keep((beginning, size, before), conversation)
            raise OutdatedListError
        if lines.said:
            turn = conversation.say(lines.said[-1])
        self._keep((beginning, size, lines.said), conversation)
        return {**turn.to_json(), "at": beginning.at, "catalog": len(model.ids)}

    def _begin(self, beginning: Beginning) -> tuple[ConversationModel, list[str]]:
        """What ranks in such a conversation, and what of its beginning counts as unknown."""
        begun = self._begun.pop(beginning, None)
        if begun is None:
            if self._model is None:
                if not isinstance(self._answering, Explaining):
                    raise ConfigError(f"{self._answering.name} holds no conversation.")
                self._model = ConversationModel(self._answering)
            self._notes.clear()
            model = self._model.begin(
                beginning.start, beginning.at, dict(beginning.context), beginning.left_out
            )
            begun = model, list(self._notes)
        self._begun[beginning] = begun
        while len(self._begun) > _BEGINNINGS:
            del self._begun[next(iter(self._begun))]
        return begun

    def _take(self, key: _Key) -> Conversation | None:
        """A conversation that stands behind these lines, which is no longer kept; else None."""
        now = self._clock()
        while self._kept:
            first = next(iter(self._kept))
            if now - self._kept[first][0] < SECONDS:
                break
            del self._kept[first]
        kept = self._kept.pop(key, None)
        if kept is None or not key[2]:  # one that was only opened is opened again: turn 0 is shown
            return None
        return kept[1]

    def _keep(self, key: _Key, conversation: Conversation) -> None:
        if key[2]:
            self._kept.pop(key, None)
            self._kept[key] = self._clock(), conversation
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
