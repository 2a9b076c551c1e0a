"""Ranks the cases of a part: the whole catalog, lists, impressions or labelled events."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from recsys.data.splits.availability import AvailabilityWindows
from recsys.errors import DataError, DivergenceError
from recsys.evaluation.equal_items import EqualItems
from recsys.evaluation.ranking import (
    Ranker,
    count_block_queries,
    mask_scores,
    score_items,
    select_top,
)
from recsys.metrics.functional import (
    compute_from_counts,
    compute_from_lists,
    count_ranks,
)
from recsys.metrics.names import REPEATED, Ranking, list_metrics
from recsys.metrics.ranking import RankingMetrics
from recsys.types import Batch

SEVERAL = ("labels", "impressions")
"""Rankings whose cases may have several positives, so that no rank tells every metric."""

COLLAPSED = 0.9995
"""Mean cosine between items above which an encoder says the same of every text."""


class Evaluator(nn.Module):
    """Counts metrics and keeps a row a case.

    Args:
        ranking: What is ranked for a case.
        ks: Cut-offs of the metrics.
        mask_history: Leave out of the catalog what the user has had.
        counts: (I,) how often training shows each item; 0 makes it cold.
        label: What stands before each metric's name.
        windows: When the items of the catalog can be had: the whole catalog of a case is what can
            be had at its time, and its target; None: every item always.
        equal: Which items of the catalog are hits for each other; None: each for itself alone.
        apart: Whether a case whose item the user had before is ranked with all that the user has
            had, and counted in a slice of its own alone.

    Attributes:
        rows: A dict of (Q,) tensors for each batch seen since `start`; a list without a
            positive has no row.
        keep: How many of the best items of each case of the catalog a row keeps as `top` (Q, keep):
            catalog rows, best first, -1 where there are no more; 0 for no such column.
    """

    def __init__(
        self,
        ranking: Ranking,
        ks: tuple[int, ...],
        mask_history: bool,
        counts: Tensor,
        label: str = "",
        windows: AvailabilityWindows | None = None,
        equal: EqualItems | None = None,
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.ranking, self.ks, self.mask_history = ranking, ks, mask_history
        self.counts, self.label, self.keep = counts, label, 0
        self.windows, self.equal = windows, equal
        self.apart = apart and ranking == "catalog"
        self.metrics = RankingMetrics(list_metrics(ranking, ks, label), self.apart)
        self.rows: list[dict[str, Tensor]] = []
        self._vectors: Tensor | None = None
        self._warned = False

    @torch.no_grad()
    def start(self, ranker: Ranker, may_stop: bool = False) -> None:
        """Encodes the catalog once; clears metrics and rows.

        Args:
            ranker: The architecture.
            may_stop: Whether training has begun, so that a collapse is its doing.

        Raises:
            DivergenceError: Training gave all items the same vector, for the second time in a row.
        """
        self.metrics.reset()
        self.rows = []
        self._vectors = ranker.index_catalog()
        self._check_spread(ranker.select_directions(self._vectors), may_stop)

    def _check_spread(self, vectors: Tensor, may_stop: bool) -> None:
        if vectors.ndim != 2 or vectors.shape[1] < 2 or not vectors.is_floating_point():
            return
        # The squared length of the mean unit vector is the mean cosine over all pairs.
        # As a product with the inverse lengths: unit vectors would be a copy of the catalog.
        vectors = vectors.float()
        weights = vectors.norm(dim=-1).clamp(min=1e-12).reciprocal()
        cosine = float((weights @ vectors / len(vectors)).square().sum())
        if cosine < COLLAPSED:
            self._warned = False
            return
        text = f"the encoder gives all items nearly the same vector (mean cosine {cosine:.5f})"
        if self._warned and may_stop:
            raise DivergenceError(f"{text}, twice in a row; lower the learning rate.")
        self._warned = may_stop
        warnings.warn(text, stacklevel=2)

    @torch.no_grad()
    def step(self, ranker: Ranker, batch: Batch) -> None:
        """Ranks the cases of a batch; no collective in here.

        Raises:
            DataError: A score is NaN, or `start` was not called.
        """
        if self._vectors is None:
            raise DataError("the catalog was not encoded before the cases were ranked.")
        items = self._vectors[batch.plan.items]
        if self.ranking == "catalog":
            values, row = self._rank_catalog(ranker, batch, items, self._vectors)
        else:
            values, row = self._rank_lists(ranker, batch, items)
        row = {
            "case": batch.case,
            "user": batch.users[batch.query[:, 0]],
            "history": batch.query[:, 1],
            **{name: column[batch.query[:, 0]] for name, column in batch.extras.items()},
            **row,
            "popularity": self.counts.to(row["target"].device)[row["target"]],
        }
        counted = batch.case >= 0
        values = {f"{self.label}{name}": value for name, value in values.items()}
        self.metrics.update(values, counted, row["cold"], row.get(REPEATED))
        kept = counted & (row["positives"] > 0)
        self.rows.append({k: v[kept].cpu() for k, v in row.items()})

    def _rank_catalog(
        self, ranker: Ranker, batch: Batch, items: Tensor, vectors: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        target = batch.plan.items[batch.candidates[:, 0]]
        queries = ranker.queries(batch, items)
        block = count_block_queries(len(vectors))
        found = [
            self._rank_queries(
                ranker,
                batch,
                queries[at],
                at,
                vectors,
                target[at],
                n * block,
            )
            for n, at in enumerate(
                torch.split(torch.arange(len(target), device=target.device), block)
            )
        ]
        greater, equal, size, hidden, again, top = (
            torch.cat(list(c)) for c in zip(*found, strict=True)
        )
        row = {
            "target": target,
            "rank": greater + 1,
            "ties": equal,
            "size": size,
            "cold": self._is_cold(target),
            "unreachable": hidden,
            "positives": torch.ones_like(target),
            **({REPEATED: again} if self.apart else {}),
            **({"top": top} if self.keep else {}),
        }
        return compute_from_counts(greater, equal, self.ks), row

    def _rank_queries(
        self,
        ranker: Ranker,
        batch: Batch,
        queries: Tensor,
        at: Tensor,
        vectors: Tensor,
        target: Tensor,
        start: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Where targets of consecutive queries `at` stand, which are masked or had, what is best.

        The queries begin with number `start` of the batch.
        """
        empty = batch.at_host.query[start : start + len(target), 1] == 0
        scores = score_items(ranker, queries, vectors, empty)
        had = _select_pairs(batch.seen, at, len(batch.query))
        again = _is_among(target, had)
        seen = had[: None if self.mask_history else 0]
        if self.apart:
            seen = seen[~again[seen[:, 0]]]
        closed = self._mask_unavailable(batch, start, target)
        mask = seen
        if batch.basket_items is not None:
            mask = torch.cat([seen, _select_pairs(batch.basket_items, at, len(batch.query))])
        if closed is not None:
            closed[mask[:, 0], mask[:, 1]] = True
            mask = closed
        ranked = mask
        if self.equal is not None:
            target, ranked = self.equal.take_best(scores, target, mask)
        hidden = _is_among(target, seen)
        greater, equal, size = count_ranks(scores, target, ranked, batch.case[at])
        # A target that is masked away can never be found: it stands behind all others.
        greater = torch.where(hidden, torch.full_like(greater, scores.shape[1]), greater)
        equal = torch.where(hidden, torch.zeros_like(equal), equal)
        top = torch.empty(len(scores), 0, dtype=torch.long, device=scores.device)
        if self.keep:
            top = select_top(mask_scores(scores, mask), self.keep)
        return greater, equal, size, hidden, again, top

    def _mask_unavailable(self, batch: Batch, start: int, target: Tensor) -> Tensor | None:
        """(Q, I) what cannot be had when the cases from `start` on are asked, (Q,) targets apart.

        None where every item can always be had.
        """
        if self.windows is None:
            return None
        case = batch.at_host.case[start : start + len(target)].numpy()
        closed = self.windows.make_mask(case, target.device)
        return closed.scatter_(1, target[:, None], False)

    def _rank_lists(
        self, ranker: Ranker, batch: Batch, items: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        valid = batch.candidates >= 0
        scores = ranker.score_candidates(batch, items).float()
        candidates = batch.plan.items[batch.candidates.clamp(min=0)]
        if ranker.needs_history:
            empty = batch.query[:, 1] == 0
            scores = torch.where(empty[:, None], ranker.get_popularity()[candidates], scores)
        labels = (batch.labels > 0) & valid
        values = compute_from_lists(scores, labels.to(scores.dtype), valid, self.ks, batch.case)
        # What a row says must not depend on the scores, or slices would differ between methods:
        # the target is the first positive, and a case is cold where all its positives are.
        first = labels.int().argmax(1)
        greater, equal, size = count_ranks(scores, first, ~valid, batch.case)
        row = {
            "target": candidates.gather(1, first[:, None])[:, 0],
            "rank": greater + 1,
            "ties": equal,
            "size": size,
            "cold": (self._is_cold(candidates) | ~labels).all(1) & labels.any(1),
            "unreachable": torch.zeros_like(valid[:, 0]),
            "positives": labels.sum(1),
            **(values if self.ranking in SEVERAL else {"auc": values["auc"]}),
        }
        if "missed" not in batch.extras:
            return values, row
        return self._count_misses(values, row, batch.extras["missed"][batch.query[:, 0]])

    def _count_misses(
        self, values: dict[str, Tensor], row: dict[str, Tensor], missed: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Lets a target that its list lacks stand behind all items of the catalog.

        That is where the catalog's ranking has a target that cannot be reached.

        Args:
            values: (Q,) metrics of the lists, by name.
            row: What is told of each case.
            missed: (Q,) catalog row of the target where the list lacks it, else -1.
        """
        absent = missed >= 0
        none = torch.zeros_like(missed)
        last = none + len(self.counts)
        worst = {**compute_from_counts(last, none, self.ks), "auc": none.double()}
        values = {name: torch.where(absent, worst[name], own) for name, own in values.items()}
        target = torch.where(absent, missed, row["target"])
        return values, {
            **row,
            "target": target,
            "rank": torch.where(absent, last + 1, row["rank"]),
            "ties": torch.where(absent, none, row["ties"]),
            "cold": torch.where(absent, self._is_cold(target), row["cold"]),
            "positives": row["positives"] + absent.long(),
            "auc": values["auc"],
            "missed": absent,
        }

    def _is_cold(self, items: Tensor) -> Tensor:
        return self.counts.to(items.device)[items] == 0

    def end(self) -> dict[str, float]:
        """Metrics by name over all cases since `start`, over all ranks."""
        self._vectors = None
        return {k: float(v) for k, v in self.metrics.compute().items()}


def _is_among(target: Tensor, pairs: Tensor) -> Tensor:
    """(Q,) whether each target (Q,) is in a pair (S, 2) of query and item."""
    query, item = pairs.unbind(1)
    same = (item == target[query]).long()
    return torch.zeros_like(target).index_add(0, query, same) > 0


def _select_pairs(pairs: Tensor, at: Tensor, queries: int) -> Tensor:
    """The pairs (S, 2) of query and item of consecutive queries `at`, counted from the first.

    Args:
        pairs: Those of all queries.
        at: Some of the queries.
        queries: How many there are.
    """
    if len(at) == queries:
        return pairs
    query = pairs[:, 0]
    pairs = pairs[(query >= at[0]) & (query <= at[-1])]
    return torch.stack([pairs[:, 0] - at[0], pairs[:, 1]], dim=1)
