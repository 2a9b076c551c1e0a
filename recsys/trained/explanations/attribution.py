"""What each item of one query's history adds to the scores of some items."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.evaluation.ranking import Ranker, score_items
from recsys.recommender.base import Recommender
from recsys.trained.explanations.gradients import integrate_gradients
from recsys.trained.explanations.parts import Method
from recsys.types import Batch, HistoryScore, ItemBatch


@dataclass(frozen=True)
class Attribution:
    """Scores of N items and what the U items of the query's plan add to each.

    Attributes:
        method: How that was computed.
        scores: (N,).
        history: (N, U).
        rest: By name, (N,) what belongs to no item of the history.
        baseline: (N,) the scores that the parts lead away from; None where they sum to nothing.
    """

    method: Method
    scores: Tensor
    history: Tensor
    rest: dict[str, Tensor]
    baseline: Tensor | None

    def compute_errors(self) -> Tensor | None:
        """(N,) by how much the parts miss the change of the score, over that change, 0 or more."""
        if self.baseline is None:
            return None
        parts = self.history.double().sum(1) + sum(x.double() for x in self.rest.values())
        change = self.scores.double() - self.baseline.double()
        error = (parts - change).abs()
        # A score that is its baseline has parts that sum to zero, but for rounding.
        return torch.where(error > 0, error / change.abs().clamp(min=1e-6), error)


class QueryScorer:
    """Scores items for a query and for the same query without a part of its history.

    Args:
        recommender: The model.
        batch: One query, as `Examples.make_serving_batch` makes it.
        rows: (N,) catalog rows.
        asked: (1, ...) what a text asks for in place of a history; None: nothing does.
        items: (N, ...) representations of the items; None: they are made.
    """

    def __init__(
        self,
        recommender: Recommender,
        batch: Batch,
        rows: Tensor,
        asked: Tensor | None,
        items: Tensor | None = None,
    ) -> None:
        self.recommender, self.batch, self.rows, self.asked = recommender, batch, rows, asked
        self._ranker: Ranker = recommender if asked is not None else recommender.ranker
        recommender.eval()
        with torch.no_grad():
            self._own = recommender.index(batch.plan)
            self._items = recommender.index(ItemBatch(rows, ())) if items is None else items

    @property
    def is_empty(self) -> bool:
        """Whether the history that the model needs is empty, so that popularity answers."""
        return self.asked is None and not len(self.batch.plan.items) and self._ranker.needs_history

    def make_history_score(self) -> HistoryScore | None:
        """The scores as a function of the vectors of the history, where they are one."""
        with torch.no_grad():
            catalog = self.recommender.index_catalog()
        return self.recommender.make_history_score(self.batch, self.rows, catalog)

    @torch.no_grad()
    def score(self, without: Tensor | None = None) -> Tensor:
        """(N,) scores.

        Args:
            without: Places in the query's plan of items that the history lacks; None: none.
        """
        if self.asked is not None:
            return score_items(self._ranker, self.asked, self._items, torch.zeros(1).bool())[0]
        batch = self.batch if without is None else drop_items(self.batch, without)
        empty = batch.query[:, 1] == 0
        queries = self._ranker.queries(batch, self._own)
        return score_items(self._ranker, queries, self._items, empty, self.rows)[0]


def drop_items(batch: Batch, places: Tensor) -> Batch:
    """A query whose history lacks some items, wherever they stand in it, liked or disliked.

    Args:
        batch: One query.
        places: (K,) of the items in its plan.
    """
    ((row, prefix),) = batch.query.tolist()
    had = batch.history[row, :prefix]
    kept = had[~torch.isin(had, places)]
    disliked = batch.disliked
    if disliked is not None:
        disliked = disliked[:, ~torch.isin(disliked[0], places)]
    query = torch.tensor([[0, len(kept)]])
    return replace(batch, history=kept[None], query=query, disliked=disliked, host=None)


def find_disliked(batch: Batch, count: int) -> list[bool]:
    """Whether each of the first items of a query's plan is read as disliked, and nowhere else.

    Args:
        batch: One query.
        count: How many items.
    """
    if batch.disliked is None:
        return [False] * count
    ((row, prefix),) = batch.query.tolist()
    places = torch.arange(count)
    only = torch.isin(places, batch.disliked) & ~torch.isin(places, batch.history[row, :prefix])
    return [bool(each) for each in only]


def attribute_scores(
    scorer: QueryScorer, method: Method | None = None, fast: bool = False
) -> Attribution:
    """What each item of a query's history adds to the scores.

    Args:
        scorer: Of the query and the items.
        method: How; None: exactly where the scores are sums over the history, else by integrated
            gradients where the model makes its query of item vectors, else by leaving items out.
        fast: Leave items out wherever the scores are no sums, for all items at a time.

    Raises:
        ConfigError: The model does not go with the method, or a package is missing.
    """
    scores, whole = scorer.score(), scorer.recommender
    if scorer.asked is not None or scorer.is_empty:
        name = "text" if scorer.asked is not None else "popularity"
        none = scores.new_zeros(len(scores), 0)
        return Attribution("exact", scores, none, {name: scores}, torch.zeros_like(scores))
    single = whole.ranker is whole
    if method in (None, "exact") and single:
        with torch.no_grad():
            split = whole.split_scores(scorer.batch, scorer.rows)
        if split is not None:
            zero = torch.zeros_like(scores)
            return Attribution("exact", scores, split.history, split.rest, zero)
    if method == "exact":
        raise ConfigError(
            "method=exact needs a score that is a sum over the history, which this model's is not; "
            "leave method= out, or set method=leave_one_out."
        )
    if method == "gradients" or (method is None and not fast and single):
        history = scorer.make_history_score() if single else None
        if history is not None:
            return _integrate(history, scores)
        if method == "gradients":
            raise ConfigError(
                "method=gradients needs a model that makes its query of the vectors of items, "
                "which this one is not; leave method= out, or set method=leave_one_out."
            )
    return leave_one_out(scorer, scores)


def _integrate(history: HistoryScore, scores: Tensor) -> Attribution:
    """Integrated gradients of scores (N,) over the vectors of a history."""
    with torch.no_grad():
        baseline = history.score(history.baseline[None])[0]
    parts = [
        integrate_gradients(history.score, history.vectors, history.baseline, column).sum(1)
        for column in range(len(scores))
    ]
    return Attribution("gradients", scores, torch.stack(parts), {}, baseline)


def leave_one_out(scorer: QueryScorer, scores: Tensor) -> Attribution:
    """By how much the scores (N,) fall where an item of the history had not been there.

    The drops need not sum to anything: two items that say the same hide each other.
    """
    places = torch.arange(len(scorer.batch.plan.items))
    drops = [scores - scorer.score(place[None]) for place in places]
    history = torch.stack(drops, dim=1) if drops else scores.new_zeros(len(scores), 0)
    return Attribution("leave_one_out", scores, history, {}, None)
