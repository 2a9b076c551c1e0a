"""What answers queries and says why: a finished run, or a bundle."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from recsys.errors import ConfigError
from recsys.trained.explanations.parts import TITLES
from recsys.trained.queries import Answering, check_count, make_queries

if TYPE_CHECKING:
    from recsys.trained.conversation.conversation import Conversation
    from recsys.trained.explanations.explainer import Explainer
    from recsys.trained.explanations.explanation import Explanation
    from recsys.trained.recommendations import Suggester


class Explaining(Answering):
    """Base of what recommends and explains its recommendations."""

    @property
    @abc.abstractmethod
    def suggester(self) -> Suggester:
        """What answers, built once."""

    def explain(
        self,
        item: object,
        *,
        user: object | None = None,
        history: Iterable[object] | None = None,
        text: str | None = None,
        at: str = "now",
        context: Mapping[str, object] | None = None,
        method: str | None = None,
        tokens: bool = False,
        titles: int = TITLES,
    ) -> Explanation:
        """Why an item has its score for a user, a history or a text; one of the three is given.

        Args:
            item: Its id.
            user: Id of a user of the data.
            history: Ids of the items that someone unknown had, oldest first.
            text: What is looked for.
            at: As in `recommend`.
            context: As in `recommend`.
            method: exact, gradients or leave_one_out; None: the first of them that the model
                goes with.
            tokens: Whether to say what each word of the texts adds, as `readings`.
            titles: How many titles of a history have their words read, where the model reads each
                apart: those that add most, in magnitude.

        Returns:
            What each item of the history adds to the score, and each word where that was asked for.

        Raises:
            ConfigError: Not exactly one of the three is given, the model does not go with the
                method or reads no words, a package is missing, or as in `recommend`.
            DataError: An id is unknown, or the moment is no time.
        """
        (query,) = make_queries(
            None if user is None else [user],
            None if history is None else [history],
            None if text is None else [text],
        )
        if titles < 0:
            raise ConfigError(f"titles is {titles}; give a whole number from 0.")
        given = {key: str(value) for key, value in (context or {}).items()}
        return self.explainer.explain(query, str(item), at, given, method, tokens, titles)

    def converse(
        self,
        *,
        user: object | None = None,
        history: Iterable[object] | None = None,
        k: int = 10,
        at: str = "now",
        context: Mapping[str, object] | None = None,
    ) -> Conversation:
        """Recommends in turns: `say` takes a line, such as "more like 3, but older".

        Args:
            user: Id of a user of the data whom the conversation begins with.
            history: Ids of the items that someone unknown had, oldest first.
            k: Items of a list.
            at: As in `recommend`.
            context: As in `recommend`.

        Returns:
            A conversation; `open` gives the list that it begins with, where there is one.

        Raises:
            ConfigError: Both a user and a history are given, or as in `recommend`.
            DataError: An id is unknown, or the moment is no time.
        """
        from recsys.trained.conversation.conversation import Conversation
        from recsys.trained.conversation.scoring import ConversationModel

        check_count("k", k)
        start = None
        if user is not None or history is not None:
            (start,) = make_queries(
                None if user is None else [user], None if history is None else [history], None
            )
        given = {key: str(value) for key, value in (context or {}).items()}
        return Conversation(ConversationModel(self, start, at, given), k)

    @cached_property
    def explainer(self) -> Explainer:
        """What explains, and writes a line for each item of a list."""
        from recsys.trained.explanations.explainer import Explainer

        return Explainer(self.suggester)
