"""Softmax over the positives of the whole batch, on all ranks.

The correction by log Q follows Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus
Item Recommendations (RecSys 2019), for a pool without repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from recsys.objective import (
    Surroundings,
    candidate_items,
    check_share,
    need,
    softmax_loss,
)
from recsys.types import Batch, Loss, Scored


@dataclass
class Config:
    """Settings of the in-batch softmax."""

    needs: ClassVar[str] = "queries"
    reads_labels: ClassVar[bool] = False

    logq: float = field(
        default=0.0,
        metadata={
            "help": "strength, 0 to 1, of the correction for popular items standing in the pool "
            "more often; full strength helps warm items and can hurt cold ones"
        },
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "share of the target's mass spread over the pool, below 1"}
    )


class Objective:
    """In-batch softmax: each query against the unique positives of all ranks.

    Args:
        logq: Strength of the correction, in [0, 1].
        label_smoothing: In [0, 1).

    Raises:
        ConfigError: A value outside its range.
    """

    def __init__(self, logq: float, label_smoothing: float) -> None:
        self.logq = check_share("objective.logq", logq)
        self.smoothing = check_share("objective.label_smoothing", label_smoothing, below_one=True)

    def __call__(self, scored: Scored, batch: Batch, around: Surroundings) -> Loss:
        """Sum over the local queries that have a case and a target; others are not counted.

        The user's other known positives are no negatives. On several ranks every rank must call
        it, also one whose batch is all fillers.

        Args:
            scored: Query vectors (Q, D) and the plan's item vectors (U, D).
            batch: The batch; column 0 of its candidates is the target.
            around: Frequencies, known positives, gathering and scoring.

        Raises:
            ConfigError: The architecture gives no vectors.
        """
        other = "objective sampled_softmax or bce"
        queries = need(scored.queries, "in_batch", "query vectors", other)
        items = need(scored.items, "in_batch", "item vectors", other)
        mine = candidate_items(batch)[:, 0].contiguous()
        # repeats stay in as masked columns: a shape that depends on values would cost a sync
        pool = around.gather(mine)
        local = batch.candidates[:, 0].clamp(min=0)
        if not len(items):
            local = local[:0]
        vectors = around.gather(items[local])
        ordered, order = torch.sort(pool, stable=True)
        first = order[torch.searchsorted(ordered, pool).clamp(max=max(len(pool) - 1, 0))]
        column = (first == torch.arange(len(pool), device=pool.device)) & (pool >= 0)
        target = order[torch.searchsorted(ordered, mine)] if len(mine) else mine
        logits = around.score(queries, vectors)
        if self.logq:
            correction = around.log_inclusion(pool, (pool >= 0).sum())
            logits = logits - self.logq * correction
        # looked up by user, not by query: a user with many queries is searched once
        known = around.known(batch.users, pool)[batch.query[:, 0].clamp(min=0)]
        keep = column & ~known & (mine >= 0)[:, None]
        keep = keep | ((pool == mine[:, None]) & column)
        return softmax_loss(logits, target, keep, self.smoothing)
