"""What a finished run recommends: its model is built once, and asked as often as one likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.trained.explanations.reasons import list_reasons
from recsys.trained.lookup import (
    ClosedItems,
    RowFinder,
    add_columns,
    check_columns,
    check_ids,
    describe_sample,
    make_frame,
    parse_moment,
    print_note,
)
from recsys.trained.queries import ANY, Choice, Query
from recsys.trained.retrieval import FirstStage
from recsys.trained.selection import ItemSelector, Servable, encode_text
from recsys.types import Batch

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig
    from recsys.recommender.base import Recommender


@dataclass(frozen=True)
class PreparedQuery:
    """A query as its model reads it.

    Attributes:
        recommender: The model.
        tables: The data.
        batch: One query, which may have a history.
        seen: Catalog rows that the user has had.
        closed: Catalog rows that cannot be had.
        asked: (1, ...) what a text asks for in place of a history, or None.
        rows: (0 or 1,) the catalog row that was looked up besides.
    """

    recommender: Recommender
    tables: Tables
    batch: Batch
    seen: Tensor
    closed: Tensor
    asked: Tensor | None
    rows: Tensor


class ReadQuery(NamedTuple):
    """A query as its model reads it.

    Attributes:
        batch: One query, which may have a history.
        seen: Catalog rows that the user has had.
        asked: (1, ...) what a text asks for in place of a history, or None.
    """

    batch: Batch
    seen: Tensor
    asked: Tensor | None


class ModelSource(Protocol):
    """Where a model comes from: a run's folder, or a bundle."""

    @property
    def run(self) -> RunConfig:
        """The configuration."""
        ...

    @property
    def scores_new_items(self) -> bool:
        """Whether an item that the fit did not know has a score."""
        ...

    def open(self, check: Callable[[Tables], None]) -> Servable:
        """Builds the model.

        Args:
            check: Sees the tables before anything is encoded, and may refuse them.
        """
        ...

    def load_catalog(self, recommender: Recommender) -> Tensor | None:
        """(I, ...) representations of all items, where they are kept; None: to be computed.

        Args:
            recommender: The model that was opened, for items of which none is kept.
        """
        ...


class Suggester:
    """Answers queries with a model.

    It is built with the first query; ids are checked before anything is encoded.

    Args:
        source: Where the model comes from.

    Attributes:
        report: Takes a sentence on what of a question counts as unknown; it is printed.
    """

    report: Callable[[str], None]

    def __init__(self, source: ModelSource) -> None:
        self.source, self.run = source, source.run
        self._made: Servable | None = None
        self._ids: RowFinder | None = None
        self._closed: ClosedItems | None = None
        self.report = print_note

    def rank(
        self,
        queries: Sequence[Query],
        k: int,
        at: str,
        context: Mapping[str, str],
        choice: Choice = ANY,
    ) -> pl.DataFrame:
        """The best unseen items of each query.

        Args:
            queries: What is asked.
            k: Items a query; fewer come back where the catalog is exhausted.
            at: A moment such as 2024-05-01T12:00 (UTC), or `now`.
            context: Value by column of what a run with `architecture.context` is asked in.
            choice: Which items may be recommended, and what is said of them.

        Returns:
            query, rank, item, score and title, and the columns asked for: a row an item, the best
            first.

        Raises:
            ConfigError: The data has changed since, or the run knows nothing of a context.
            DataError: An id is unknown, the moment is no time, or nothing can be had then.
        """
        moment = parse_moment(at)
        made = self.open_for(queries)
        codes = self._encode_context(made, moment, context)
        check_columns(made.tables.items, choice.columns)
        closed = self._find_closed(made, at, moment, choice.where)
        stage = self._open_first_stage(made, k, at, context, choice)
        chosen = [self._rank_one(made, query, k, codes, closed, choice, stage) for query in queries]
        assert self._ids is not None
        why = self._list_reasons(made, queries, chosen, codes, choice.because)
        texts = made.recommender.parts.texts
        frame = make_frame(queries, chosen, self._ids.items, texts, why)
        return add_columns(frame, made.tables.items, choice.columns)

    def _open_first_stage(
        self, made: Servable, k: int, at: str, context: Mapping[str, str], choice: Choice
    ) -> FirstStage | None:
        """What proposes the items that are ranked, where another run does.

        Raises:
            ConfigError: It ranks another catalog, or all items are ranked and nothing is proposed.
        """
        if choice.retriever is None:
            if choice.candidates is not None and not self.selector.reads_pairs:
                raise ConfigError(
                    "candidates: this run ranks all items, so that none are proposed to it; leave "
                    "it out, or give a retriever, another run that proposes them."
                )
            return None
        size = self.selector.count_candidates(k, choice.candidates)
        stage = FirstStage(choice.retriever, self.list_items(), self.find_items, size, at, context)
        stage.check()
        return stage

    def list_items(self) -> pl.Series:
        """(I,) ids of all items, as texts."""
        return self.model.tables.items["item"].cast(pl.String)

    def propose(
        self,
        query: Query,
        size: int,
        at: str,
        context: Mapping[str, str],
        left_out: Sequence[str],
    ) -> list[str]:
        """Ids of the best items for a query, the best first, whatever their columns.

        Args:
            query: What is asked.
            size: How many.
            at: As in `rank`.
            context: As in `rank`; a run that was trained without context leaves it out.
            left_out: Ids of items that may not be proposed.

        Raises:
            ConfigError: As in `rank`.
            DataError: As in `rank`.
        """
        read = self.read_query(query, at, context if self.run.architecture.reads_context else {})
        hidden = self.find_items(left_out)
        _, rows = self.selector.select(query, read.batch, read.asked, hidden, size)
        return self.list_items().gather(rows.cpu().numpy()).to_list()

    def read_query(self, query: Query, at: str, context: Mapping[str, str]) -> ReadQuery:
        """A query as the model reads it, whether or not anything can be had at that moment.

        Args:
            query: What is asked.
            at: As in `rank`.
            context: As in `rank`.

        Raises:
            ConfigError: The run knows nothing of a context, or reads no texts.
            DataError: An id is unknown, or the moment is no time.
        """
        moment = parse_moment(at)
        made = self.open_for([query])
        codes = self._encode_context(made, moment, context)
        return ReadQuery(*self._make_batch(made, query, codes))

    def _encode_context(
        self, made: Servable, moment: int, context: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """A moment and what is said of it as the model reads them; what is unknown is reported."""
        codes, notes = made.context_features.encode_context(moment, context)
        for note in notes:
            self.report(note)
        return codes

    @property
    def reads_pairs(self) -> bool:
        """Whether each item takes a joint pass with the query."""
        return self.selector.reads_pairs

    def prepare(
        self, query: Query, item: str | None, at: str, context: Mapping[str, str]
    ) -> PreparedQuery:
        """A query with the model that answers it.

        Args:
            query: What is asked.
            item: Id of an item that is looked up besides, or None.
            at: As in `rank`.
            context: As in `rank`.

        Raises:
            ConfigError: As in `rank`.
            DataError: As in `rank`, or the item is unknown.
        """
        moment = parse_moment(at)
        lookup = Query(history=() if item is None else (item,))
        made = self.open_for([query, lookup])
        assert self._ids is not None
        codes = self._encode_context(made, moment, context)
        closed = self._find_closed(made, at, moment)
        batch, seen, asked = self._make_batch(made, query, codes)
        rows = torch.tensor(self._ids.find_rows(lookup)[1], dtype=torch.long)
        return PreparedQuery(made.recommender, made.tables, batch, seen, closed, asked, rows)

    def find_items(self, items: Sequence[str]) -> Tensor:
        """(N,) catalog rows of items, once a query has been prepared.

        Raises:
            DataError: An id is unknown.
        """
        assert self._ids is not None
        return torch.tensor(self._ids.find_rows(Query(history=tuple(items)))[1], dtype=torch.long)

    def list_closed(self, at: str) -> Tensor:
        """(S,) catalog rows that cannot be had at a moment, or have no score.

        Raises:
            DataError: The moment is no time, or nothing can be had then.
        """
        return self._find_closed(self.model, at, parse_moment(at))

    def _find_closed(
        self, made: Servable, at: str, moment: int, where: str | None = None
    ) -> Tensor:
        """(S,) catalog rows that cannot be had then, are not asked for, or have no score.

        Raises:
            ConfigError: The expression is none.
            DataError: Nothing can be had then.
        """
        if self._closed is None or self._closed.items is not made.tables.items:
            self._closed = ClosedItems(made.tables.items)
        closed = torch.from_numpy(self._closed.find(at, moment, where))
        origin = made.parts.origin
        if origin is None or self.source.scores_new_items:
            return closed
        return torch.cat([closed, (origin < 0).nonzero()[:, 0]])

    def open(self, check: Callable[[Tables], None]) -> Servable:
        """The model and its data.

        Args:
            check: Sees the tables before anything is encoded, and may refuse them.
        """
        if self._made is not None:
            check(self._made.tables)
            return self._made

        def keep_and_check(tables: Tables) -> None:
            self._ids = RowFinder(tables)
            check(tables)

        self._made = self.source.open(keep_and_check)
        return self._made

    def open_for(self, queries: Sequence[Query]) -> Servable:
        """The model and its data, once the ids of the queries are known to be there."""

        def check(tables: Tables) -> None:
            assert self._ids is not None
            self._check_ids(self._ids, queries)

        return self.open(check)

    @property
    def model(self) -> Servable:
        """The model; it is built now where nothing was asked yet."""
        return self.open_for([])

    @cached_property
    def catalog(self) -> Tensor:
        """(I, ...) representations of all items."""
        recommender = self.model.recommender
        kept = self.source.load_catalog(recommender)
        return recommender.index_catalog() if kept is None else kept

    @cached_property
    def selector(self) -> ItemSelector:
        """Chooses the items of a query."""
        return ItemSelector(self.model, self.run, lambda: self.catalog)

    def _check_ids(self, ids: RowFinder, queries: Iterable[Query]) -> None:
        """Raises a `DataError` for an unknown id."""
        check_ids(ids, queries, partial(describe_sample, self.run))

    def _rank_one(
        self,
        made: Servable,
        query: Query,
        k: int,
        context: dict[str, Tensor],
        closed: Tensor,
        choice: Choice,
        stage: FirstStage | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Catalog rows and scores of the best items of one query."""
        batch, seen, asked = self._make_batch(made, query, context)
        seen = seen if choice.exclude_seen else seen[:0]
        left_out = torch.cat([seen, closed])
        pool = None if stage is None else stage.propose(query, left_out)
        scores, rows = self.selector.select(query, batch, asked, left_out, k, choice, pool)
        return rows.cpu().numpy(), scores.cpu().numpy()

    def _list_reasons(
        self,
        made: Servable,
        queries: Sequence[Query],
        chosen: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
        context: dict[str, Tensor],
        because: bool | None,
    ) -> list[str] | None:
        """What of each query's history speaks for each of its items; None: nobody asks."""
        if because is False:
            return None
        assert self._ids is not None
        catalog, out = None if self.reads_pairs else self.catalog, []
        for query, (rows, _) in zip(queries, chosen, strict=True):
            # A text is not encoded again, unless it has reasons.
            if query.text is not None and not made.recommender.has_witnesses:
                out += [""] * len(rows)
                continue
            batch, _, asked = self._make_batch(made, query, context)
            out += list_reasons(
                made.recommender,
                self._ids.items,
                batch,
                torch.from_numpy(rows),
                asked,
                catalog,
                because is True,
            )
        return out

    def _make_batch(
        self, made: Servable, query: Query, context: dict[str, Tensor]
    ) -> tuple[Batch, Tensor, Tensor | None]:
        """One query in its context, the rows it has seen, and its representation if a text asks."""
        if query.text is not None:
            batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
            batch = replace(batch, context={**batch.context, **context})
            asked = encode_text(made.recommender, made, batch, query.text)
            return batch, torch.empty(0, dtype=torch.long), asked
        assert self._ids is not None
        user, given = self._ids.find_rows(query)
        had = np.asarray(given, dtype=np.int64) if user < 0 else made.examples.list_history(user)
        seen = had if user < 0 else made.examples.list_seen(user)
        batch = made.examples.make_serving_batch(had, user)
        batch = replace(batch, context={**batch.context, **context})
        return batch, torch.from_numpy(seen), None
