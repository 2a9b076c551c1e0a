"""Squared error between the score and the observed weight, such as a rating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys.config.schema import ObjectiveConfig, Output
from recsys.losses import (
    ObjectiveContext,
    compute_pair_loss,
    get_candidate_items,
    require_output,
)
from recsys.types import Batch, Loss, Scored


@dataclass
class Config(ObjectiveConfig):
    """Settings of the squared error: none."""

    needs: ClassVar[Output] = "scores"
    reads_labels: ClassVar[bool] = True
    predicts_weights: ClassVar[bool] = True


class Objective:
    """Squared error on the observed weights."""

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum and count over the pairs with a case and a candidate.

        A weight is what a score is to be here, and not how much its pair counts.

        Args:
            scored: Scores (Q, C), in the unit of the weights.
            batch: The batch, with weights (Q, C).
            around: Not used.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = require_output(scored.scores, "mse", "scores of candidates", "objective in_batch")
        return compute_pair_loss(
            lambda clean: (clean - batch.weight.to(clean.dtype)) ** 2,
            scores,
            get_candidate_items(batch) >= 0,
        )
