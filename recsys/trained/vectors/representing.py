"""Vectors and scores of a finished run, or of a bundle, for whatever else is built on them."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from recsys.errors import ConfigError, nearest
from recsys.trained.queries import Answering, Query, make_queries
from recsys.trained.vectors.arrays import TokenVectors, Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recsys.trained.recommendations import Suggester
    from recsys.trained.vectors.representer import Representer

Kind = Literal["user", "history", "text"]
"""What stands first in a pair that is scored."""


class Representing(Answering):
    """Base of what gives vectors and scores."""

    @property
    @abc.abstractmethod
    def suggester(self) -> Suggester:
        """What answers, built once."""

    def item_vectors(self) -> Vectors:
        """The vectors that queries are compared with, of all items.

        Where a score is a product (`architecture.score` is not mlp), it is
        scale * (user's vector . item's vector), plus what `architecture.popularity` adds for the
        item; `python -m recsys.export format=vectors` writes the scale and what is added.

        Returns:
            (I,) ids and (I, D) vectors, in the catalog's order.

        Raises:
            ConfigError: The model has no vector for each item; of late interaction,
                `token_vectors` are what it has.
        """
        return self._representer.list_items()

    def user_vectors(
        self,
        *,
        users: Iterable[object] | None = None,
        histories: Iterable[Iterable[object]] | None = None,
        at: str = "now",
        context: Mapping[str, object] | None = None,
    ) -> Vectors:
        """The vectors of users or of histories, as items are compared with them.

        Args:
            users: Ids of users of the data.
            histories: For each of some unknown people, ids of the items they had, oldest first.
            at: As in `recommend`.
            context: As in `recommend`.

        Returns:
            (N,) ids and (N, D) vectors; a row of zeros for someone without the history that the
            model needs, who is answered with what is popular. Where a run scores by masked copies
            of a history, the mean over these.

        Raises:
            ConfigError: Not exactly one of the two is given, or the model has no such vectors.
            DataError: An id is unknown.
        """
        if (users is None) == (histories is None):
            raise ConfigError("give one of users= and histories=.")
        given = {key: str(value) for key, value in (context or {}).items()}
        return self._representer.encode_users(make_queries(users, histories, None), at, given)

    def encode(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """What texts ask for, as vectors that items are compared with.

        Args:
            texts: What is looked for.

        Returns:
            (N, D) float32, a row a text, in their order.

        Raises:
            ConfigError: The model has no such vectors, reads no texts, or a text is empty.
        """
        return self._representer.encode_texts(make_queries(None, None, texts))

    def token_vectors(
        self, *, items: Iterable[object] | None = None, texts: Iterable[str] | None = None
    ) -> TokenVectors:
        """The token vectors of late interaction: of items as candidates, or of texts that ask.

        The score of an item for a text is scale * (the mean, over the text's tokens, of their
        largest product with a token of the item); that of a history is the mean of this over its
        last titles, by a decay with their distance from the end.

        Args:
            items: Ids.
            texts: What is looked for.

        Returns:
            Ids, offsets and vectors.

        Raises:
            ConfigError: Not exactly one of the two is given, or the model has no token vectors.
            DataError: An id is unknown.
        """
        if (items is None) == (texts is None):
            raise ConfigError("give one of items= and texts=.")
        if items is None:
            return self._representer.encode_text_tokens(make_queries(None, None, texts))
        if isinstance(items, str):
            raise ConfigError(f"items is the text {items!r}; give a list, as in [{items!r}].")
        return self._representer.encode_item_tokens([str(item) for item in items])

    def score(
        self,
        pairs: Iterable[tuple[object, object]],
        *,
        kind: Kind = "user",
        at: str = "now",
        context: Mapping[str, object] | None = None,
    ) -> NDArray[np.float32]:
        """The score of each pair of a user, a history or a text with an item, as in `recommend`.

        Whether the user had the item, and whether it can be had at that moment, does not matter.

        Args:
            pairs: Each a user's id, ids of a history (oldest first) or a text, and an item's id;
                pairs of one query are scored together.
            kind: What stands first in each pair: user, history or text.
            at: As in `recommend`.
            context: As in `recommend`.

        Returns:
            (N,) float32, in the order of the pairs.

        Raises:
            ConfigError: Something that is no pair is given, the kind is unknown, or the model
                reads no texts.
            DataError: An id is unknown.
        """
        queries, items = _split_pairs(pairs, kind)
        given = {key: str(value) for key, value in (context or {}).items()}
        return self._representer.score_pairs(queries, items, at, given)

    @cached_property
    def _representer(self) -> Representer:
        from recsys.trained.vectors.representer import Representer

        return Representer(self.suggester)


def _split_pairs(
    pairs: Iterable[tuple[object, object]], kind: str
) -> tuple[list[Query], list[str]]:
    """Queries and items of pairs.

    Raises:
        ConfigError: One is no pair, or the kind is unknown.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"kind is '{kind}', which is none.{nearest(kind, get_args(Kind))}")
    asked: list[object] = []
    items = []
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Iterable) or len(each := list(pair)) != 2:
            raise ConfigError(f"{pair!r} is no pair of a {kind} and an item.")
        if kind != "history" and isinstance(each[0], list | tuple):
            raise ConfigError(f"{each[0]!r} is no {kind}; set kind='history' for ids of items.")
        if kind == "history" and not isinstance(each[0], Iterable):
            raise ConfigError(f"{each[0]!r} is no list of item ids.")
        asked.append(each[0])
        items.append(str(each[1]))
    texts = [str(text) for text in asked] if kind == "text" else None
    histories = [of for of in asked if isinstance(of, Iterable)] if kind == "history" else None
    return make_queries(asked if kind == "user" else None, histories, texts), items
