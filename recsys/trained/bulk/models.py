"""Ranks the catalog for many queries at a time: by arrays alone, by a model, or one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.tables import Tables
from recsys.errors import DataError
from recsys.evaluation.ranking import count_block_queries, mask_scores, score_items, select_best
from recsys.trained.bulk.queries import QueryBlock
from recsys.trained.bundle.plain import PlainModel
from recsys.trained.lookup import SCHEMA
from recsys.trained.queries import Choice, Query
from recsys.trained.recommendations import Suggester
from recsys.trained.selection import Servable
from recsys.types import Batch

Ints = NDArray[np.int64]
Rank = Callable[[QueryBlock], pl.DataFrame]

_MOST_QUERIES = 256  # that a model reads at a time: as many as a step of an evaluation


@dataclass(frozen=True)
class Setting:
    """What all lists have in common.

    Attributes:
        k: Items of a list.
            moment: It, in milliseconds since 1970.
        context: Value by column of what is known of the queries.
        choice: Which items may be recommended.
        closed: (S,) catalog rows that may not.
    """

    k: int
    moment: int
    context: Mapping[str, str]
    choice: Choice
    closed: Ints


class BulkModel(Protocol):
    """What ranks the catalog for many queries."""

    @property
    def tables(self) -> Tables:
        """Items, and the users who can be asked for."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with everything that changes a list."""
        ...

    @property
    def reads_clock(self) -> bool:
        """Whether scores depend on the moment."""
        ...

    @property
    def part(self) -> int:
        """How many queries are some seconds of work, about."""
        ...

    def make_ranker(self, setting: Setting) -> Rank:
        """What gives the lists of some queries: as `recommend`, without further columns."""
        ...


class ArrayModel:
    """Scores that are products of arrays.

    Args:
        plain: The arrays.
    """

    reads_clock = False
    part = 4096

    def __init__(self, plain: PlainModel) -> None:
        self._plain, self.tables = plain, plain.tables
        self.fingerprint = plain.files.compute_fingerprint()

    def make_ranker(self, setting: Setting) -> Rank:
        """By one product of matrices for many queries where items have vectors."""
        items = self.tables.items.height
        open_rows = np.setdiff1d(np.arange(items), setting.closed)
        score = self._make_product(open_rows) if self._plain.multiplies_vectors else None
        popularity = torch.from_numpy(self._plain.get_popularity()[open_rows]).float()
        places = np.full(items, -1, dtype=np.int64)
        places[open_rows] = np.arange(len(open_rows))

        def rank(block: QueryBlock) -> pl.DataFrame:
            had, seen = self._list_events(block)
            had = [each[-self._plain.max_history :] for each in had]
            if score is None:
                rows = [self._plain.score(each)[open_rows] for each in had]
                scores = torch.from_numpy(np.stack(rows))
            else:
                scores = score(had)
                empty = torch.tensor([not len(each) for each in had])
                scores[empty] = popularity
            if setting.choice.exclude_seen:
                query = np.repeat(np.arange(len(seen)), [len(each) for each in seen])
                column = places[np.concatenate(seen)]
                at = torch.from_numpy(np.stack([query, column])[:, column >= 0])
                scores[at[0], at[1]] = -torch.inf
            return make_rows(block, scores, setting.k, open_rows, self.tables.items)

        return _in_blocks(rank, count_block_queries(max(1, len(open_rows))))

    def _make_product(self, open_rows: Ints) -> Callable[[list[Ints]], Tensor]:
        """What scores the open items for histories; (Q, N), undefined where one is empty."""
        vectors, added = self._plain.split_vectors()
        if len(open_rows) < len(vectors):  # a copy, and less to multiply
            vectors, added = vectors[open_rows], None if added is None else added[open_rows]
        items = torch.from_numpy(np.asarray(vectors)).T
        prior = None if added is None else torch.from_numpy(np.array(added))

        def score(had: list[Ints]) -> Tensor:
            users = np.zeros((len(had), len(items)), dtype=np.float32)
            for user, history in zip(users, had, strict=True):
                if len(history):
                    user[:] = self._plain.make_user_vector(history)
            scores = torch.from_numpy(users) @ items
            return scores if prior is None else scores.add_(prior)

        return score

    def _list_events(self, block: QueryBlock) -> tuple[list[Ints], list[Ints]]:
        """What each query's history is made of, and all that it had."""
        if block.histories is not None:
            return block.histories, block.histories
        assert block.users is not None
        events = [self._plain.list_events(user) for user in block.users.tolist()]
        return [had for had, _ in events], [seen for _, seen in events]


class BatchModel:
    """A model that ranks the catalog as in its evaluation, in batches.

    Args:
        suggester: Has the model, which is built.
        fingerprint: Of all that it answers by.
    """

    part = 4096

    def __init__(self, suggester: Suggester, fingerprint: str) -> None:
        self._suggester, self._made = suggester, suggester.model
        self.tables, self.fingerprint = self._made.tables, fingerprint
        self.reads_clock = bool(self._made.context_features.clock)

    def make_ranker(self, setting: Setting) -> Rank:
        """By the one ranking of a catalog that evaluation has."""
        made, catalog = self._made, self._suggester.catalog
        model = made.recommender.eval()
        codes, notes = made.context_features.encode_context(setting.moment, setting.context)
        for note in notes:
            self._suggester.report(note)
        closed, rows = torch.from_numpy(setting.closed), np.arange(len(catalog))

        @torch.no_grad()
        def rank(block: QueryBlock) -> pl.DataFrame:
            batch, seen = _make_batch(made, block)
            context = {name: of.expand(len(block)) for name, of in codes.items()}
            batch = replace(batch, context={**batch.context, **context})
            queries = model.ranker.queries(batch, catalog[batch.plan.items])
            scores = score_items(model.ranker, queries, catalog, batch.query[:, 1] == 0)
            if setting.choice.exclude_seen:
                scores = mask_scores(scores, seen)
            if len(closed):
                scores = scores.index_fill(1, closed, -torch.inf)
            return make_rows(block, scores, setting.k, rows, self.tables.items)

        return _in_blocks(rank, min(_MOST_QUERIES, count_block_queries(len(catalog))))


def _make_batch(made: Servable, block: QueryBlock) -> tuple[Batch, Tensor]:
    """Queries as their model reads them, and (S, 2) query and catalog row of what they had."""
    if block.histories is not None:
        had = seen = block.histories
        users = [-1] * len(block)
    else:
        assert block.users is not None
        users = block.users.tolist()
        had = [made.examples.list_history(user) for user in users]
        seen = [made.examples.list_seen(user) for user in users]
    query = np.repeat(np.arange(len(seen)), [len(each) for each in seen])
    pairs = np.stack([query, np.concatenate(seen)], axis=1)
    return made.examples.make_serving_batch_of(had, users), torch.from_numpy(pairs)


class SingleModel:
    """A model that is asked for one query after the other, as `recommend` asks it.

    Where user and item are read together, a single query fills the model's batches already.

    Args:
        suggester: Has the model, which is built.
        fingerprint: Of all that it answers by.
    """

    part = 64

    def __init__(self, suggester: Suggester, fingerprint: str) -> None:
        self._suggester = suggester
        self.tables, self.fingerprint = suggester.model.tables, fingerprint
        self.reads_clock = bool(suggester.model.context_features.clock)

    def make_ranker(self, setting: Setting) -> Rank:
        """By `Suggester.rank`."""
        ids = self.tables.items["item"].cast(pl.String)
        moment, choice = format_moment(setting.moment), replace(setting.choice, columns=())

        def rank(block: QueryBlock) -> pl.DataFrame:
            labels = block.labels.to_list()
            if block.histories is None:
                queries = [Query(user=label) for label in labels]
            else:
                queries = [
                    _NamedQuery(history=tuple(ids.gather(rows).to_list()), name=label)
                    for label, rows in zip(labels, block.histories, strict=True)
                ]
            rows = self._suggester.rank(queries, setting.k, moment, setting.context, choice)
            self._suggester.report = _ignore  # what it says of the first ones, it says of all
            return rows

        return rank


def _ignore(note: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class _NamedQuery(Query):
    """A query that is called otherwise than by what it asks.

    Attributes:
        name: What it is called.
    """

    name: str = ""

    @property
    def label(self) -> str:
        """Its name."""
        return self.name


def format_moment(moment: int) -> str:
    """A moment, in milliseconds since 1970, as `at=` has it."""
    return datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def can_multiply(plain: PlainModel, context: Mapping[str, str], choice: Choice) -> bool:
    """Whether products of arrays give the lists that are asked for."""
    return not choice.diversity and plain.can_answer([Query(history=())], context, choice)


def make_bulk_model(suggester: Suggester, fingerprint: str, choice: Choice) -> BulkModel:
    """What ranks by a model.

    Args:
        suggester: Has the model, which is built.
        fingerprint: Of all that it answers by.
        choice: Which items may be recommended; what is not said of each item alone is asked for
            one by one.
    """
    of = suggester.run.architecture
    alone = choice.diversity or choice.retriever is not None or choice.candidates is not None
    if alone or (of.trains and not of.reads_item_vectors):
        return SingleModel(suggester, fingerprint)
    return BatchModel(suggester, fingerprint)


def compute_fingerprint(content: object) -> str:
    """SHA-256 of something that is written as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_rows(
    block: QueryBlock, scores: Tensor, k: int, rows: Ints, items: pl.DataFrame
) -> pl.DataFrame:
    """The lists of some queries.

    Args:
        block: The queries.
        scores: (Q, N); -inf for what may not be recommended.
        k: Items of a list.
        rows: (N,) catalog rows of the columns.
        items: As `Tables.items`.

    Raises:
        DataError: A score is not a number.
    """
    if not scores.numel():
        return pl.DataFrame(schema=SCHEMA)
    if scores.amax().isnan():
        raise DataError("a score is not a number; fit the run again, or make the bundle again.")
    values, columns = select_best(scores, min(k, scores.shape[1]))
    best = values.double().cpu().numpy()
    query, place = np.nonzero(best > -np.inf)
    chosen = rows[columns.cpu().numpy()[query, place]]
    return pl.DataFrame(
        {
            "query": block.labels.gather(query),
            "rank": place + 1,
            "item": items["item"].cast(pl.String).gather(chosen),
            "score": best[query, place],
            "title": items["text"].gather(chosen),
        },
        schema=SCHEMA,
    )


def _in_blocks(rank: Rank, size: int) -> Rank:
    """Ranks so many queries at a time."""

    def rank_all(block: QueryBlock) -> pl.DataFrame:
        parts = [rank(block.slice(at, at + size)) for at in range(0, len(block), size)]
        return pl.concat([pl.DataFrame(schema=SCHEMA), *parts])

    return rank_all
