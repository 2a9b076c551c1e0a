"""Who or what is asked for, and what answers: a run, or a bundle."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Protocol

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl


BECAUSE = "because"
"""Further column of recommendations: what of the history speaks for the item."""


@dataclass(frozen=True)
class Query:
    """Who or what is asked for; one of the three is given.

    Attributes:
        user: Id of a user of the data.
        history: Ids of items that someone had, oldest first.
        text: What is looked for.
    """

    user: str | None = None
    history: tuple[str, ...] | None = None
    text: str | None = None

    @property
    def label(self) -> str:
        """The user's id, the items' ids with commas between them, or the text."""
        if self.user is not None:
            return self.user
        return ",".join(self.history) if self.history is not None else str(self.text)


class Proposing(Protocol):
    """What proposes items: `recommendations.Suggester`."""

    def list_items(self) -> pl.Series:
        """(I,) ids of all items, as texts."""
        ...

    def propose(
        self,
        query: Query,
        size: int,
        at: str,
        context: Mapping[str, str],
        left_out: Sequence[str],
    ) -> list[str]:
        """Ids of the best items for a query without those left out, the best first."""
        ...


class Retriever(Protocol):
    """A finished run or a bundle that proposes what another one ranks."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def suggester(self) -> Proposing:
        """What proposes."""
        ...

    def add_items(self, items: pl.DataFrame | str | Path) -> Retriever:
        """As `Answering.add_items`."""
        ...


@dataclass(frozen=True)
class Choice:
    """Which items may be recommended, and what is said of them.

    Attributes:
        where: An expression over the columns of items, as `trained.where` has it; None: all.
        exclude_seen: Whether what someone had is left out.
        columns: Further columns of the items to give.
        diversity: How much unlike each other they are to be, as `trained.diversity` has it; 0: the
            best ones.
        retriever: What proposes the items to choose from; None: all are ranked, or of a model that
            reads pairs those that baselines propose.
        candidates: How many are proposed; None: `evaluation.candidates` of the run that ranks.
        because: Whether a line says for each item what of the history speaks for it; None: where
            that is read off the score, which is a sum over the history, and else empty.
    """

    where: str | None = None
    exclude_seen: bool = True
    columns: tuple[str, ...] = ()
    diversity: float = 0.0
    retriever: Retriever | None = None
    candidates: int | None = None
    because: bool | None = False


ANY = Choice()


class Answering(abc.ABC):
    """Base of what recommends."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called."""

    def recommend(
        self,
        *,
        users: Iterable[object] | None = None,
        histories: Iterable[Iterable[object]] | None = None,
        texts: Iterable[str] | None = None,
        k: int = 10,
        at: str = "now",
        context: Mapping[str, object] | None = None,
        where: str | None = None,
        exclude_seen: bool = True,
        columns: Iterable[str] = (),
        diversity: float = 0.0,
        retriever: Retriever | None = None,
        candidates: int | None = None,
        because: bool | None = False,
        items: pl.DataFrame | str | Path | None = None,
    ) -> pl.DataFrame:
        """The best unseen items of each user, history or text; one of the three is given.

        The first call reads what is needed and builds the model, further ones only ask it.

        Args:
            users: Ids of users of the data.
            histories: For each of some unknown people, ids of the items they had, oldest first.
            texts: What is looked for.
            k: Items for each.
            at: The moment, such as 2024-05-01T12:00 (UTC): items with windows of availability are
                left out where they cannot be had then, and hour and weekday are those of then.
            context: Value by column of what a run with `architecture.context` is asked in.
            where: Which items, as in "year >= 1990 and genres contains 'Comedy'": comparisons,
                `contains` and `in (...)` of the items' columns, with and, or, not; None: all.
            exclude_seen: Whether what someone had is left out.
            columns: Further columns of the items to give.
            diversity: 0 to 1. Above 0, a list is chosen by maximal marginal relevance (Carbonell
                and Goldstein, SIGIR 1998) among the best items, 100 or five times k: each is the
                one with the largest (1 - diversity) * relevance - diversity * similarity, where
                relevance is the score scaled to [0, 1] among them, and similarity the largest
                cosine with an item that was chosen before. What represents an item is its vector
                (two towers), the mean of its token vectors (late interaction), what each item of
                the catalog adds to its score (ease, item_knn), else the tf-idf weights of its text.
                Scores stay those of the model: they need not fall with the rank.
            retriever: Another run or bundle over the same items, which proposes those that this one
                ranks: for a cross-encoder in place of popularity and tf-idf, or any two. What may
                be recommended is for this run to say.
            candidates: How many items are proposed, where not all are ranked; at least k. None:
                `evaluation.candidates` of this run.
            because: Whether a column `because` says what of the history speaks for each item, as in
                'because you had "Alien" (41%)': exactly where the score is a sum over the history,
                else by leaving out each of its items, which asks the model as often. It is empty
                where nothing speaks for the item, and for texts. None: only where it is exact.
            items: As in `add_items`.

        Returns:
            A frame with query (the user's id, the history's ids or the text), rank, item, score
            and title, then because and the columns asked for; a row an item, the best first.

        Raises:
            ConfigError: Not exactly one of the three is given, k is below 1, diversity is beyond
                its bounds, the data has changed since, the run knows nothing of a context, or the
                retriever ranks another catalog or cannot answer.
            DataError: An id is unknown, or the moment is no time.
        """
        queries = make_queries(users, histories, texts)
        check_count("k", k)
        given = {key: str(value) for key, value in (context or {}).items()}
        choice = make_choice(
            where, exclude_seen, columns, diversity, retriever, candidates, because
        )
        if items is not None and choice.retriever is not None:
            choice = replace(choice, retriever=choice.retriever.add_items(items))
        answering = self if items is None else self.add_items(items)
        return answering.answer(queries, k, at, given, choice)

    @abc.abstractmethod
    def add_items(self, items: pl.DataFrame | str | Path) -> Answering:
        """The same model over a catalog with further items; this one stays as it is.

        They are scored by their texts, as an item is that the test part alone had. One that is
        there already gets the text and columns that are given.

        Args:
            items: A frame, or a .csv, .tsv, .jsonl or .parquet file: a column `item`, a column
                `text` or those that the run's texts are made of, and any further ones, such as
                `available_from`.

        Raises:
            ConfigError: The model has no score for an item that it has not seen.
            DataError: The table cannot be used.
        """

    @abc.abstractmethod
    def answer(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """As `recommend`, of queries that may be of several kinds."""


def make_choice(
    where: str | None,
    exclude_seen: bool,
    columns: Iterable[str],
    diversity: float,
    retriever: Retriever | None,
    candidates: int | None,
    because: bool | None = False,
) -> Choice:
    """What `recommend` was given, as a choice.

    Raises:
        ConfigError: A value is of another kind than its argument has.
    """
    if isinstance(columns, str):
        raise ConfigError(f"columns is the text {columns!r}; give a list, as in [{columns!r}].")
    if not isinstance(exclude_seen, bool):
        raise ConfigError(f"exclude_seen is {exclude_seen!r}; set it to True or False.")
    if not isinstance(because, bool | None):
        raise ConfigError(f"because is {because!r}; set it to True, False or None.")
    if candidates is not None:
        check_count("candidates", candidates)
    if isinstance(retriever, str | PathLike):
        raise ConfigError(
            f"retriever is the path {str(retriever)!r}; give a run, as in "
            f"recsys.load({str(retriever)!r}), or a bundle."
        )
    if retriever is not None and not isinstance(retriever, Answering):
        raise ConfigError(
            f"retriever is of type {type(retriever).__name__}; give a run, as recsys.load "
            "returns it, or a bundle."
        )
    return Choice(
        where,
        exclude_seen,
        tuple(columns),
        check_diversity(diversity),
        retriever,
        candidates,
        because,
    )


def check_count(key: str, count: int) -> None:
    """Raises an error where a number of things is no whole number from 1.

    Raises:
        ConfigError: So it is.
    """
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
        raise ConfigError(f"{key} is '{count}'; give a whole number from 1.")


def check_diversity(diversity: float) -> float:
    """The same number, from 0 to 1.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(diversity, bool) or not isinstance(diversity, Real):
        raise ConfigError(
            f"diversity is {diversity!r}; give a number from 0, which is the best items, to 1."
        )
    if not 0 <= diversity <= 1:  # nor is NaN
        raise ConfigError(
            f"diversity is {diversity:g}; give a number from 0, which is the best items, to 1."
        )
    return diversity


def make_queries(
    users: Iterable[object] | None,
    histories: Iterable[Iterable[object]] | None,
    texts: Iterable[str] | None,
) -> list[Query]:
    """The queries, once exactly one kind is given and each is a list.

    Raises:
        ConfigError: It is not so.
    """
    given = {"users": users, "histories": histories, "texts": texts}
    (*names,) = (name for name, value in given.items() if value is not None)
    if len(names) != 1:
        raise ConfigError("give one of users=, histories= and texts=.")
    for name, value in given.items():
        if isinstance(value, str):  # whose letters would be taken for ids
            raise ConfigError(f"{name} is the text {value!r}; give a list, as in [{value!r}].")
        if value is not None and not isinstance(value, Iterable):
            raise ConfigError(f"{name} is {value!r}; give a list, as in [{value!r}].")
    if users is not None:
        return [Query(user=str(user)) for user in users]
    if texts is not None:
        return [Query(text=_check_text(text)) for text in texts]
    made = []
    for history in histories or ():
        if isinstance(history, str):
            raise ConfigError(f"a history is the text {history!r}; give a list of item ids.")
        made.append(Query(history=tuple(map(str, history))))
    return made


def _check_text(text: object) -> str:
    """What is looked for.

    Raises:
        ConfigError: It is no text, is empty, or has half of a character.
    """
    if not isinstance(text, str):
        raise ConfigError(f"one of the texts is {text!r}; give a text, which says what is sought.")
    if not text.strip():
        raise ConfigError("one of the texts is empty; give what is looked for.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"one of the texts, {text!r}, has half of a character at place {error.start + 1} (a "
            "surrogate); decode it as UTF-8 or UTF-16 first."
        ) from None
    return text
