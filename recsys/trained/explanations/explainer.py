"""Explains the scores of a run's model, built once, as often as one likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
import torch
from torch import Tensor

from recsys.errors import ConfigError, nearest
from recsys.evaluation.ranking import mask_scores
from recsys.trained.explanations.attribution import (
    Attribution,
    QueryScorer,
    attribute_scores,
    find_disliked,
)
from recsys.trained.explanations.explanation import Explanation
from recsys.trained.explanations.parts import (
    METHODS,
    TITLES,
    HistoryPart,
    Method,
    Reading,
    make_history_parts,
)
from recsys.trained.explanations.reasons import list_reasons
from recsys.trained.explanations.words.readings import choose_readings, make_reading
from recsys.trained.queries import Query
from recsys.trained.recommendations import PreparedQuery, Suggester
from recsys.trained.selection import tokenize_text


class Explainer:
    """Says what each item of a history adds to the score of an item.

    Args:
        suggester: Whose recommendations are explained.
    """

    def __init__(self, suggester: Suggester) -> None:
        self._suggester = suggester

    def explain(
        self,
        query: Query,
        item: str,
        at: str = "now",
        context: Mapping[str, str] | None = None,
        method: str | None = None,
        tokens: bool = False,
        titles: int = TITLES,
    ) -> Explanation:
        """Why an item has its score.

        Args:
            query: Who or what is asked for.
            item: The item's id.
            at: As in `Suggester.rank`.
            context: As in `Suggester.rank`.
            method: exact, gradients or leave_one_out; None: the first that the model goes with.
            tokens: Whether to say what each word of the texts adds.
            titles: How many titles of a history have their words read, where each is read apart:
                those that add most, in magnitude.

        Raises:
            ConfigError: The model does not go with the method or reads no words, a package is
                missing, or as in
                `Suggester.rank`.
            DataError: An id is unknown, or the moment is no time.
        """
        chosen = parse_method(method)
        asked = self._suggester.prepare(query, item, at, context or {})
        scorer = QueryScorer(asked.recommender, asked.batch, asked.rows, asked.asked)
        parts = attribute_scores(scorer, chosen)
        (row,) = asked.rows.tolist()
        errors = parts.compute_errors()
        readings = None
        if tokens:
            readings = self._read_words(query, asked, row, parts, titles)
        return Explanation(
            query=query.label,
            item=item,
            title=asked.recommender.parts.texts[row],
            score=float(parts.scores[0]),
            rank=self._find_rank(asked, row),
            method=parts.method,
            history=_name_history(asked, parts, 0),
            rest={name: float(values[0]) for name, values in parts.rest.items()},
            baseline=None if parts.baseline is None else float(parts.baseline[0]),
            error=None if errors is None else float(errors[0]),
            readings=readings,
        )

    def _read_words(
        self, query: Query, asked: PreparedQuery, row: int, parts: Attribution, titles: int
    ) -> tuple[Reading, ...]:
        """What the words of the texts behind the score of a catalog row add to it."""
        text = None if query.text is None else tokenize_text(self._suggester.model, query.text)
        scores = asked.recommender.eval().make_token_scores(asked.batch, row, text)
        adds = parts.history[0].abs()
        best = asked.batch.plan.items[adds.argsort(descending=True)[:titles]].tolist()
        ids = asked.tables.items["item"].cast(pl.String).to_list()
        return tuple(
            make_reading(score, float(parts.scores[0]), ids)
            for score in choose_readings(scores, best)
        )

    def list_because(
        self,
        query: Query,
        items: Sequence[str],
        at: str = "now",
        context: Mapping[str, str] | None = None,
    ) -> list[str]:
        """A line for each of some recommended items, such as `because you had "Alien" (41%)`.

        It is empty where nothing that the query had speaks for the item. Where scores are no sums
        over the history, each item of it is left out once, for all lines together.

        Args:
            query: Who or what was asked for.
            items: Ids.
            at: As in `Suggester.rank`.
            context: As in `Suggester.rank`.
        """
        if not items:
            return []
        asked = self._suggester.prepare(query, items[0], at, context or {})
        rows = self._suggester.find_items(items)
        ids = asked.tables.items["item"].cast(pl.String).to_list()
        return list_reasons(
            asked.recommender, ids, asked.batch, rows, asked.asked, catalog=None, always=True
        )

    def _find_rank(self, asked: PreparedQuery, row: int) -> int | None:
        """The rank of a catalog row among what may be recommended, equal scores sharing the best.

        None where it may not be, or where no whole catalog is ranked.
        """
        if not asked.recommender.ranks_catalog:
            return None
        every = torch.arange(len(asked.recommender.parts.texts))
        hidden = torch.isin(every, torch.cat([asked.seen, asked.closed]))
        if hidden[row]:
            return None
        scores = score_catalog(asked, self._suggester.catalog)
        scores = mask_scores(scores, hidden[None])[0]
        return int((scores > scores[row]).sum()) + 1


def score_catalog(asked: PreparedQuery, catalog: Tensor) -> Tensor:
    """(1, I) scores of a query with all items.

    Args:
        asked: The query.
        catalog: (I, ...) representations of all items.
    """
    every = torch.arange(len(catalog))
    return QueryScorer(asked.recommender, asked.batch, every, asked.asked, catalog).score()[None]


def parse_method(method: str | None) -> Method | None:
    """The method of a name; None for none.

    Raises:
        ConfigError: There is no such method.
    """
    for name in METHODS:
        if method == name:
            return name
    if method is None:
        return None
    raise ConfigError(f"method is '{method}', which is none.{nearest(method, list(METHODS))}")


def _name_history(asked: PreparedQuery, parts: Attribution, place: int) -> tuple[HistoryPart, ...]:
    """What the history adds to the score of one of the items."""
    own = asked.batch.plan.items[: parts.history.shape[1]]
    ids, texts = asked.tables.items["item"], asked.recommender.parts.texts
    return make_history_parts(
        [str(ids[row]) for row in own.tolist()],
        [texts[row] for row in own.tolist()],
        parts.history[place].tolist(),
        find_disliked(asked.batch, len(own)),
    )
