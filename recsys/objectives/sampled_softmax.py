"""Softmax over the target and sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from recsys.errors import ConfigError
from recsys.objective import (
    Surroundings,
    candidate_items,
    check_share,
    need,
    query_users,
    softmax_loss,
)
from recsys.types import Batch, Loss, Scored


@dataclass
class Config:
    """Settings of the sampled softmax."""

    needs: ClassVar[str] = "scores"
    reads_labels: ClassVar[bool] = False

    negatives: int = field(default=16, metadata={"help": "negatives drawn for each query"})
    sampling: Literal["uniform", "frequency"] = field(
        default="uniform",
        metadata={
            "help": "how they are drawn among the items seen in training: all alike, or in "
            "proportion to their training positives"
        },
    )
    logq: float = field(
        default=0.0,
        metadata={
            "help": "strength, 0 to 1, of the correction for frequency sampling; uniform sampling "
            "needs none"
        },
    )
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "share of the target's mass spread over the candidates, below 1"},
    )


class Objective:
    """Sampled softmax: column 0 against the other candidates.

    Args:
        negatives: Negatives a query, for the loader.
        sampling: How the loader draws them.
        logq: Strength of the correction, in [0, 1].
        label_smoothing: In [0, 1).

    Raises:
        ConfigError: A value outside its range, or a correction where sampling needs none.
    """

    def __init__(
        self,
        negatives: int,
        sampling: Literal["uniform", "frequency"],
        logq: float,
        label_smoothing: float,
    ) -> None:
        if negatives < 1:
            raise ConfigError(f"objective.negatives is {negatives}; use at least 1")
        if sampling not in ("uniform", "frequency"):
            raise ConfigError(f"objective.sampling is {sampling!r}; use uniform or frequency")
        if logq and sampling == "uniform":
            raise ConfigError(
                f"objective.logq is {logq} with uniform sampling, which needs no correction; "
                "set logq to 0 or sampling to frequency"
            )
        self.logq = check_share("objective.logq", logq)
        self.smoothing = check_share("objective.label_smoothing", label_smoothing, below_one=True)

    def __call__(self, scored: Scored, batch: Batch, around: Surroundings) -> Loss:
        """Sum over the queries with a case, a target and at least one negative left.

        Known positives of the user, and repeats of the target, are no negatives.

        Args:
            scored: Scores (Q, C).
            batch: The batch; column 0 of its candidates is the target.
            around: Frequencies and known positives.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = need(scored.scores, "sampled_softmax", "scores of candidates", "another one")
        items = candidate_items(batch)
        if self.logq:
            # one draw: the number of draws shifts all columns alike and drops out
            scores = scores - self.logq * around.log_inclusion(items, 1)
        keep = (items >= 0) & ~around.known_each(query_users(batch), items)
        keep = keep & (items != items[:, :1])
        # by concatenation, not assignment: the target stays whatever the user is known to like
        keep = torch.cat([items[:, :1] >= 0, keep[:, 1:]], dim=1)
        target = torch.zeros_like(batch.case)
        return softmax_loss(scores, target, keep, self.smoothing)
