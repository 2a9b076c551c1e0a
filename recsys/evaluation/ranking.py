"""One ranking of a catalog, for evaluation, candidates, hard negatives and recommendation.

Scores come from a ranker, from popularity where a query has no history that the ranker needs; what
may not be ranked is masked; and the best are chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from recsys.data.augmentation.masks import HistoryMasks
from recsys.types import Batch

CHUNK = 64
"""Columns whose largest score stands for them while the best of a wide row are looked for."""

BLOCK = 1 << 24
"""Scores held at a time: they, their masks and comparisons stay within a few hundred MB."""


class Ranker(Protocol):
    """What a ranking needs of an architecture."""

    needs_history: bool

    def get_popularity(self) -> Tensor:
        """(I,) scores for a query without history, where the architecture needs one."""
        ...

    def index_catalog(self) -> Tensor:
        """(I, ...) representations of all items."""
        ...

    def select_directions(self, items: Tensor) -> Tensor:
        """What of representations (N, ...) of items tells them apart by its direction."""
        ...

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, ...) representations of the queries."""
        ...

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, N) scores of every query with every item."""
        ...

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) scores of the candidates, from the representations of the plan's items."""
        ...


class MaskedAverage:
    """Scores that are the mean over a history and masked copies of it.

    Args:
        ranker: The architecture.
        masks: Makes the copies.
    """

    def __init__(self, ranker: Ranker, masks: HistoryMasks) -> None:
        self.ranker, self.masks = ranker, masks
        self.needs_history = ranker.needs_history

    def get_popularity(self) -> Tensor:
        """(I,) the architecture's own."""
        return self.ranker.get_popularity()

    def index_catalog(self) -> Tensor:
        """(I, ...) the architecture's own."""
        return self.ranker.index_catalog()

    def select_directions(self, items: Tensor) -> Tensor:
        """As the architecture does."""
        return self.ranker.select_directions(items)

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, copies, ...) representations of the queries of each copy."""
        found = [self.ranker.queries(copy, items) for copy in self.masks.iter_copies(batch)]
        # a query that is a text has its token ids, with -1 at the end of the shorter ones
        width = max(each.shape[-1] for each in found)
        padded = [
            torch.nn.functional.pad(each, (0, width - each.shape[-1]), value=-1) for each in found
        ]
        return torch.stack(padded, dim=1)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, copies, ...), (N, ...) -> (Q, N)."""
        return _average(self.ranker.score(own, items) for own in queries.unbind(1))

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) scores of the candidates, from the representations of the plan's items."""
        copies = self.masks.iter_copies(batch)
        return _average(self.ranker.score_candidates(copy, items) for copy in copies)


def _average(scores: Iterable[Tensor]) -> Tensor:
    """The mean, in fp32, of scores of one shape; two of them are held at a time."""
    total, count = None, 0
    for each in scores:
        total = each.float() if total is None else total + each.float()
        count += 1
    assert total is not None
    return total / count


def count_block_queries(items: int) -> int:
    """How many queries are ranked at a time.

    Args:
        items: N, items that each is scored with.
    """
    return max(1, BLOCK // items)


def score_items(
    ranker: Ranker, queries: Tensor, items: Tensor, empty: Tensor, rows: Tensor | None = None
) -> Tensor:
    """Scores of queries with items of the catalog.

    Args:
        ranker: The architecture.
        queries: (Q, ...) representations.
        items: (N, ...) representations.
        empty: (Q,) bool on the host, which queries have no history.
        rows: (N,) catalog rows of the items; None: they are the whole catalog, in its order.

    Returns:
        (Q, N) float32; popularity's for a query without the history that the ranker needs.
    """
    scores = ranker.score(queries, items).float()
    # Asked on the host first: choosing by row writes all scores once more.
    if not ranker.needs_history or not empty.any():
        return scores
    popularity = ranker.get_popularity()
    popularity = popularity if rows is None else popularity[rows]
    return torch.where(empty.to(scores.device)[:, None], popularity, scores)


def mask_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with -inf for what may not be chosen.

    Args:
        scores: (Q, N).
        mask: (Q, N) bool, True for that; or (S, 2) its places, row and column.
    """
    if mask.dtype == torch.bool:
        return scores.masked_fill(mask, -torch.inf)
    if not len(mask):
        return scores
    return scores.index_put((mask[:, 0], mask[:, 1]), scores.new_tensor(-torch.inf))


def select_top(scores: Tensor, top: int, order: Tensor | None = None) -> Tensor:
    """Columns of the highest scores, best first.

    Args:
        scores: (Q, N); -inf for what may not be chosen.
        top: T.
        order: (N,) columns in the order in which equal scores go, so that the choice is the same on
            every machine; None: as `torch.topk` takes them, which promises no order.

    Returns:
        (Q, T), -1 where there are no more.
    """
    size = min(top, scores.shape[1])
    if order is None:
        values, columns = scores.topk(size)
    else:
        values, columns = select_stably(scores[:, order], size)
        columns = order[columns]
    columns = columns.masked_fill(values == -torch.inf, -1)
    return torch.nn.functional.pad(columns, (0, top - size), value=-1)


def select_stably(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The highest scores and their columns, (Q, size) each; equal scores go by column.

    It costs no sort of whole rows.

    Args:
        scores: (Q, N).
        size: From 1 to N.
    """
    least = scores.topk(size).values[:, -1:]
    above, equal = scores > least, scores == least
    chosen = above | (equal & (equal.cumsum(1) <= size - above.sum(1, keepdim=True)))
    columns = chosen.nonzero()[:, 1].view(len(scores), size)
    values, places = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, places)


def select_best(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The highest scores and their columns, best first; equal scores go by column.

    What `select_stably` gives, in a single pass over wide rows: the best T of a row lie in the T
    chunks of columns with the largest maxima, of equal ones in the first.

    Args:
        scores: (Q, N); -inf for what may not be chosen.
        size: T, at most N.

    Returns:
        (Q, T) scores and (Q, T) columns.
    """
    whole = scores.shape[1] // CHUNK
    if size >= whole:
        return select_stably(scores, size)
    # What is left of a row behind its last whole chunk is always looked at.
    head = scores[:, : whole * CHUNK].view(len(scores), whole, CHUNK)
    _, chunks = select_stably(head.amax(-1), size)
    within = torch.arange(CHUNK, device=scores.device)
    columns = (chunks.sort(dim=1).values[:, :, None] * CHUNK + within).flatten(1)
    rest = torch.arange(whole * CHUNK, scores.shape[1], device=scores.device)
    columns = torch.cat([columns, rest.expand(len(scores), -1)], dim=1)
    values, places = select_stably(scores.gather(1, columns), size)
    return values, columns.gather(1, places)
