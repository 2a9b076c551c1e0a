"""Softmax over the positives of the whole batch, on all ranks.

The correction by log Q follows Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus
Item Recommendations (RecSys 2019), for a pool without repeats. A query's own negatives beside the
pool are the hard ones of Karpukhin et al., Dense Passage Retrieval (EMNLP 2020); here they are no
negatives of other queries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys import lazy
from recsys.config.schema import NegativeSpec, ObjectiveConfig, Output, option
from recsys.losses import (
    ObjectiveContext,
    compute_softmax_loss,
    get_candidate_items,
    require_output,
    select_target_and_negatives,
)
from recsys.types import Batch, Loss, Scored

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy.import_lazily("torch")

WHOLE, BLOCK = 1 << 22, 1 << 20
"""Logits that stay in one piece, and logits of a block where there are more of them.

Up to 2,048 positives a step blocks save neither time nor memory. At 8,192 they took the peak from
1,659 to between 650 and 940 MB in about the same time; how much of it the allocator gives back
decides, and one that gives all back (205 MB) paid for it with half as much time again.
"""


@dataclass
class Config(ObjectiveConfig):
    """Settings of the in-batch softmax."""

    needs: ClassVar[Output] = "queries"

    logq: float = option(
        0.0,
        "strength, 0 to 1, of the correction for popular items standing in the pool "
        "more often; full strength helps warm items and can hurt cold ones",
        least=0,
        most=1,
    )
    label_smoothing: float = option(
        0.0, "share of the target's mass spread over the pool, below 1", least=0, below=1
    )
    chunk: int | None = option(
        None,
        "queries of a block of logits, made again in backward so that one block is "
        "held at a time; 0: all at once; null: chosen for large batches",
        least=0,
    )
    negatives: int = option(
        0,
        "a query's own negatives beside the batch's, with data.negatives=hard or "
        "impression; logq does not correct them",
        least=0,
    )

    @property
    def draws(self) -> NegativeSpec:
        """A query's own negatives; what is drawn among all items, the batch has already."""
        return NegativeSpec(self.negatives, drawable=False)


class Objective:
    """In-batch softmax: each query against the positives of all ranks and its own negatives.

    Args:
        logq: Strength of the correction, in [0, 1].
        label_smoothing: In [0, 1).
        chunk: Queries whose logits are held at a time; 0 for all, None as `WHOLE` and
            `BLOCK` say.
        negatives: Of a query's own, beside those of the batch.
    """

    def __init__(
        self,
        logq: float,
        label_smoothing: float,
        chunk: int | None = None,
        negatives: int = 0,
    ) -> None:
        self.logq = logq
        self.smoothing = label_smoothing
        self.chunk = chunk
        self.negatives = negatives

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum over the local queries that have a case and a target; others are not counted.

        The user's other known positives are no negatives. On several ranks every rank must call
        it, also one whose batch is all fillers.

        Args:
            scored: Query vectors (Q, D) and the plan's item vectors (U, D); with negatives of a
                query's own, the scores (Q, C) too.
            batch: The batch; column 0 of its candidates is the target, the others are those.
            around: Frequencies, known positives, gathering and scoring.

        Raises:
            ConfigError: The architecture gives no vectors.
        """
        other = "objective sampled_softmax or bce"
        queries = require_output(scored.queries, "in_batch", "query vectors", other)
        items = require_output(scored.items, "in_batch", "item vectors", other)
        mine = get_candidate_items(batch)[:, 0].contiguous()
        own, vectors = _select_positives(batch, mine, items)
        pool, vectors = around.gather(own), around.gather(vectors)
        # What stands on several ranks is masked but once: a shape that depends on values would
        # cost a wait for the device.
        ordered, order = torch.sort(pool, stable=True)
        first = order[torch.searchsorted(ordered, pool).clamp(max=max(len(pool) - 1, 0))]
        column = (first == torch.arange(len(pool), device=pool.device)) & (pool >= 0)
        target = order[torch.searchsorted(ordered, mine)] if len(mine) else mine
        correction: Tensor | None = None
        if self.logq:
            draws = (around.gather(mine) >= 0).sum()
            correction = self.logq * around.compute_log_inclusion(pool, draws)
        size = self._compute_block_size(len(queries), len(pool))
        # looked up by user, not by query: a user with many queries is searched once
        known = torch.empty(len(batch.users), len(pool), dtype=torch.bool, device=pool.device)
        for place, users in zip(
            torch.split(known, size), torch.split(batch.users, size), strict=True
        ):
            place.copy_(around.is_known(users, pool))
        rows = batch.query[:, 0].clamp(min=0)
        alone, beside = self._score_own_negatives(scored, batch, around, ordered)

        def compute_block(at: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
            logits = around.score(asked, vectors)
            if correction is not None:
                logits = logits - correction
            asked_for = mine[at, None]
            keep = column & ~known[rows[at]] & (asked_for >= 0)
            keep = keep | ((pool == asked_for) & column)
            if alone is not None:
                logits = torch.cat([logits, alone[at]], dim=1)
                keep = torch.cat([keep, beside[at]], dim=1)
            weight = None if batch.importance is None else batch.importance[at]
            loss = compute_softmax_loss(logits, target[at], keep, self.smoothing, weight)
            return loss.total, loss.count

        return _sum_blocks(compute_block, queries, size)

    def _score_own_negatives(
        self, scored: Scored, batch: Batch, around: ObjectiveContext, pool: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Scores (Q, n) of a query's own negatives, or None, and which of them count (Q, n).

        One that the pool has is there already: it would count twice.

        Args:
            scored: What the architecture gave.
            batch: The batch.
            around: Known positives.
            pool: (N,) catalog rows, sorted; -1 for none.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        if not self.negatives:
            return None, batch.case.new_zeros((len(batch.case), 0), dtype=torch.bool)
        scores = require_output(
            scored.scores, "in_batch", "scores of candidates", "objective full_softmax"
        )
        _, counted = select_target_and_negatives(batch, around)
        items = get_candidate_items(batch)[:, 1:].contiguous()
        if len(pool):
            place = torch.searchsorted(pool, items).clamp(max=len(pool) - 1)
            counted = counted & (pool[place] != items)
        return scores[:, 1:], counted

    def _compute_block_size(self, queries: int, pool: int) -> int:
        """Queries of a block, at least 1."""
        asked = self.chunk
        if asked is None:
            asked = 0 if queries * pool <= WHOLE else max(1, BLOCK // pool)
        return asked or max(1, queries)


def _select_positives(batch: Batch, mine: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Catalog rows (N,) and vectors (N, D) of this rank's positives; -1 for none.

    Where targets are the only candidates the loader has told the unique ones apart: with every
    position of a history as a query they are several times fewer than the queries.

    Args:
        batch: The batch.
        mine: (Q,) catalog rows of the targets, -1 in queries that do not count.
        items: (U, D) vectors of the plan.
    """
    place, unique = batch.candidates[:, 0], batch.plan.first
    if not unique or batch.candidates.shape[1] > 1:  # not told, or no target at all
        return mine, items[place.clamp(min=0)[: len(place) if len(items) else 0]]
    shown = torch.zeros(unique + 1, dtype=torch.bool, device=mine.device)
    shown.scatter_(0, torch.where(mine >= 0, place, unique), True)
    return torch.where(shown[:unique], batch.plan.items[:unique], -1), items[:unique]


def _sum_blocks(
    part: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], queries: Tensor, size: int
) -> Loss:
    """Total and count over blocks of queries; where there are several, each is made twice.

    Between forward and backward nothing of a block is kept but its two numbers. What a block
    needs from other ranks must have been gathered before: the second pass asks nobody.

    Args:
        part: Total and count of some queries, from their numbers (n,) and vectors (n, D).
        queries: (Q, D).
        size: Queries of a block.
    """
    every = torch.arange(len(queries), device=queries.device)
    if len(queries) <= size:
        return Loss(*part(every, queries))
    from torch.utils.checkpoint import checkpoint

    blocks = zip(torch.split(every, size), torch.split(queries, size), strict=True)
    # no block draws random numbers, so that none have to be kept for the second pass
    found = [
        checkpoint(part, at, asked, use_reentrant=False, preserve_rng_state=False)
        for at, asked in blocks
    ]
    total, count = (torch.stack(list(column)).sum() for column in zip(*found, strict=True))
    return Loss(total, count)
