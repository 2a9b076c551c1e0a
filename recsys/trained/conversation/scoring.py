"""How critiques act on scores: Rocchio's rule over whatever a model says of its queries.

Each thing that was said is a query of its own: the texts, the liked items as a history, the
disliked ones as another. The score of an item is the weighted sum of what the model gives it for
each (Rocchio, Relevance Feedback in Information Retrieval, 1971). Where a score is a product of
vectors, that is the score of one query vector, the weighted sum of theirs; of any other model it is
the same rule without such a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.trained.bundle.plain import select_best
from recsys.trained.conversation.columns import ItemColumns
from recsys.trained.conversation.critiques import State
from recsys.trained.conversation.titles import TitleFinder
from recsys.trained.diversity import count_pool, diversify
from recsys.trained.explanations.explainer import Explainer
from recsys.trained.queries import Query
from recsys.trained.recommendations import ReadQuery, Suggester

WEIGHTS = {
    "text": 1.0,
    "liked": 1.0,
    "disliked": -0.5,
    "avoided": -0.5,
    "profile": 0.5,
    "popularity": 1.0,
}
"""What each part counts; popularity does where nothing else speaks for any item.

Likes and dislikes count more than in text retrieval (Salton and Buckley, JASIS 1990: 0.75 and
-0.25 beside 1): here each is of one item out of a short list, and with these numbers a simulated
seeker found its film more often on MovieLens 100k, from a vague text and from a precise one.
"""

TOP = 10
"""Scores of a part are scaled so that their mean is 0 and that of so many best items is 1."""

TEXTS = 8
"""How many of the latest texts are read; older ones stay as chips and are read again when those
behind them are taken back."""

_KEPT = 64  # queries whose scores are kept, and bytes that they may take
_BYTES = 1 << 27

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Conversable(Protocol):
    """A run or a bundle: `explaining.Explaining`."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def suggester(self) -> Suggester:
        """What ranks."""
        ...

    @property
    def explainer(self) -> Explainer:
        """What takes scores apart."""
        ...


@dataclass(frozen=True)
class Part:
    """One of the queries that make up a score.

    Attributes:
        kind: A key of `WEIGHTS`.
        query: What the model is asked; None: how popular items are.
    """

    kind: str
    query: Query | None

    @property
    def weight(self) -> float:
        """What it counts."""
        return WEIGHTS[self.kind]


@dataclass(frozen=True)
class Ranked:
    """A list.

    Attributes:
        rows: (k,) catalog rows, best first.
        scores: (k,) the weighted sums.
        parts: What was asked.
        added: (P, k) what each part adds to the scores.
        fitting: How many items fit all filters and may be listed, those on the list included.
    """

    rows: Ints
    scores: Floats
    parts: Sequence[Part]
    added: Floats
    fitting: int


class ConversationModel:
    """A run or bundle as conversations ask it; one serves as many of them as one likes.

    Args:
        answering: The run or bundle.
        start: A user of the data or a history that a conversation begins with, or None.
        at: The moment, as in `recommend`.
        context: As in `recommend`.

    Attributes:
        counts: (I,) how often each item is in the training events.

    Raises:
        ConfigError: The run cannot be read, or its data has changed.
        DataError: An id is unknown, or nothing can be had at that moment.
    """

    def __init__(
        self,
        answering: Conversable,
        start: Query | None = None,
        at: str = "now",
        context: Mapping[str, str] | None = None,
    ) -> None:
        self.answering = answering
        self._suggester = answering.suggester
        made = self._suggester.open_for([] if start is None else [start])
        self.items: pl.DataFrame = made.tables.items
        self.ids: list[str] = self.items["item"].cast(pl.String).to_list()
        self.rows = {item: row for row, item in enumerate(self.ids)}
        counts = self.counts = made.parts.counts.cpu().numpy().astype(np.float64)
        self.columns = ItemColumns(self.items, counts)
        self.titles = TitleFinder(self.items, counts)
        self._popularity = np.log1p(counts).astype(np.float32)
        self._kept: dict[tuple[object, Query | None], Floats] = {}
        self._begin(start, at, context or {}, ())

    def begin(
        self,
        start: Query | None = None,
        at: str = "now",
        context: Mapping[str, str] | None = None,
        left_out: Iterable[str] = (),
    ) -> ConversationModel:
        """One for conversations that begin in another way; it shares what was read of the items.

        Args:
            start: As of the class.
            at: As of the class.
            context: As of the class.
            left_out: Ids of items that are never listed; unknown ones count for nothing.

        Raises:
            ConfigError: The run knows nothing of the context.
            DataError: An id is unknown, or nothing can be had at that moment.
        """
        out = copy(self)
        out._begin(start, at, context or {}, left_out)
        return out

    def _begin(
        self, start: Query | None, at: str, context: Mapping[str, str], left_out: Iterable[str]
    ) -> None:
        self.start, self.at, self.context = start, at, dict(context)
        situated = self._suggester.run.architecture.reads_context
        self._situation = (at, tuple(sorted(self.context.items()))) if situated else None
        self._suggester.read_query(start or Query(), at, self.context)  # what is unknown is told
        if not self._suggester.reads_pairs:
            _ = self._suggester.catalog  # made now, not at the first line
        self._open = np.ones(len(self.ids), dtype=bool)
        self._open[self._suggester.list_closed(at).numpy()] = False
        self._open[[self.rows[item] for item in left_out if item in self.rows]] = False
        if start is not None:
            self._open[self._read(start).seen.numpy()] = False

    @property
    def name(self) -> str:
        """What the run or bundle is called."""
        return self.answering.name

    @property
    def texts(self) -> Sequence[str]:
        """(I,) texts of the items."""
        return self._suggester.model.parts.texts

    @cached_property
    def reads_texts(self) -> bool:
        """Whether the model says anything of a free text."""
        try:
            self._read(Query(text="text"))
        except ConfigError:
            return False
        return True

    def list_parts(self, state: State) -> list[Part]:
        """The queries that a state asks."""
        parts = []
        texts, avoided = state.list_texts()[:TEXTS], state.list_avoided()[:TEXTS]
        if texts:
            parts.append(Part("text", Query(text=". ".join(texts))))
        if state.list_liked():
            parts.append(Part("liked", Query(history=tuple(state.list_liked()))))
        if self.start is not None:
            parts.append(Part("profile", self.start))
        if not parts:
            parts.append(Part("popularity", None))
        if avoided:
            parts.append(Part("avoided", Query(text=". ".join(avoided))))
        if state.list_disliked():
            parts.append(Part("disliked", Query(history=tuple(state.list_disliked()))))
        return parts

    def find_fitting(self, state: State) -> NDArray[np.bool_]:
        """(I,) whether each item may be listed: it fits the filters, and nothing was said of it."""
        fitting = self._open & self.columns.keep(state.list_filters())
        fitting[[self.rows[item] for item in state.list_left_out()]] = False
        return fitting

    def rank(self, state: State, k: int) -> Ranked:
        """The next items of a list: those that stand on it already are left out.

        Args:
            state: Where the conversation is.
            k: How many; fewer where no more fit.
        """
        fitting = self.find_fitting(state)
        free = fitting.copy()
        free[[self.rows[item] for item in state.listed]] = False
        count = int(fitting.sum())
        parts = self.list_parts(state)
        if not free.any():
            none = np.zeros((len(parts), 0), dtype=np.float32)
            return Ranked(np.empty(0, dtype=np.int64), none.sum(0), parts, none, count)
        pool, added = self._weigh(parts, free, k)
        totals = added.sum(0)
        size = min(count_pool(k) if state.variety else k, len(pool))
        best = select_best(totals, size)
        if state.variety:
            cosines = self._suggester.selector.compute_cosines(torch.from_numpy(pool[best]))
            own = cosines.cpu().numpy().astype(np.float32)
            best = best[diversify(totals[best], own, k, state.variety)]
        return Ranked(pool[best], totals[best], parts, added[:, best], count)

    def find_place(self, state: State, item: str) -> float | None:
        """The rank of an item among all that fit, half a place for each tie; None: it does not fit.

        A model that reads pairs ranks no other items than those that are proposed to it.

        Args:
            state: Where the conversation is; what stands on the list is ranked as well.
            item: Its id.
        """
        fitting, row = self.find_fitting(state), self.rows[item]
        if not fitting[row]:
            return None
        pool, added = self._weigh(self.list_parts(state), fitting, TOP)
        (place,) = np.nonzero(pool == row)
        if not len(place):
            return None
        totals = added.sum(0)
        own = totals[place[0]]
        return float(1 + (totals > own).sum() + ((totals == own).sum() - 1) / 2)

    def score(self, part: Part) -> Floats:
        """(I,) scaled scores of all items for one part; those of the latest parts are kept."""
        scores = self._kept.pop((self._situation, part.query), None)
        if scores is None:
            scores = self._scale(self._ask(part), part, np.arange(len(self.ids)))
        self._keep(part.query, scores)
        return scores

    def _weigh(self, parts: Sequence[Part], free: NDArray[np.bool_], k: int) -> tuple[Ints, Floats]:
        """(N,) catalog rows to choose from, and (P, N) what each part adds to their scores."""
        pairs = self._suggester.reads_pairs
        pool = self._propose(parts, free, k) if pairs else np.flatnonzero(free)
        scores = [
            self._scale(self._score_pairs(part, pool), part, pool)
            if pairs
            else self.score(part)[pool]
            for part in parts
        ]
        weights = np.array([part.weight for part in parts], dtype=np.float32)
        return pool, weights[:, None] * np.stack(scores)

    def _propose(self, parts: Sequence[Part], free: NDArray[np.bool_], k: int) -> Ints:
        """Catalog rows that baselines propose to a model that reads pairs, in their order."""
        selector = self._suggester.selector
        closed = torch.from_numpy(np.flatnonzero(~free))
        size = selector.count_candidates(k)
        rows: list[Ints] = []
        for part in parts:
            if part.query is None:
                order = np.argsort(-np.where(free, self._popularity, -np.inf), kind="stable")
                rows.append(order[: min(size, int(free.sum()))])
            elif part.weight > 0:
                read = self._read(part.query)
                proposed = selector.propose(part.query, read.batch, closed, size)
                rows.append(proposed.cpu().numpy())
        return np.unique(np.concatenate(rows)).astype(np.int64)

    def _ask(self, part: Part) -> Floats:
        """(I,) the model's scores of all items for a part."""
        if part.query is None:
            return self._popularity
        read, suggester = self._read(part.query), self._suggester
        scores = suggester.model.recommender.score_query(
            read.batch, read.asked, items=suggester.catalog
        )
        out: Floats = scores[0].float().cpu().numpy()
        return out

    def _score_pairs(self, part: Part, pool: Ints) -> Floats:
        """(N,) the scores of a pool by a model that reads pairs; a pair is read once."""
        if part.query is None:
            return self._popularity[pool]
        known = self._kept.pop((self._situation, part.query), None)
        if known is None:
            known = np.full(len(self.ids), np.nan, dtype=np.float32)
        rows = pool[np.isnan(known[pool])]
        if len(rows):
            read = self._read(part.query)
            recommender = self._suggester.model.recommender
            scores = recommender.score_query(read.batch, read.asked, torch.from_numpy(rows))
            known[rows] = scores[0].float().cpu().numpy()
        self._keep(part.query, known)
        return known[pool]

    def _keep(self, query: Query | None, scores: Floats) -> None:
        """Keeps the scores of the latest queries."""
        self._kept[self._situation, query] = scores
        while len(self._kept) > min(_KEPT, max(8, _BYTES // (4 * len(self.ids)))):
            del self._kept[next(iter(self._kept))]

    def _scale(self, scores: Floats, part: Part, pool: Ints) -> Floats:
        """Scores with mean 0, and 1 for the mean of the best, those of its own items aside."""
        out = np.nan_to_num(scores, neginf=float(scores[np.isfinite(scores)].min(initial=0.0)))
        history = () if part.query is None else part.query.history or ()
        others = out[~np.isin(pool, [self.rows[item] for item in history])]
        if not len(others):
            return np.zeros_like(out)
        mean = float(others.mean(dtype=np.float64))
        size = min(TOP, len(others))
        spread = float(np.partition(others, -size)[-size:].mean(dtype=np.float64)) - mean
        scaled: Floats = ((out - mean) / spread if spread > 1e-9 else np.zeros_like(out)).astype(
            np.float32
        )
        return scaled

    def _read(self, query: Query) -> ReadQuery:
        """A query as the model reads it; what of it is unknown was told when it began."""
        report, self._suggester.report = self._suggester.report, _keep_quiet
        try:
            return self._suggester.read_query(query, self.at, self.context)
        finally:
            self._suggester.report = report


def _keep_quiet(note: str) -> None:
    """Takes a sentence that was told when the conversation began."""
