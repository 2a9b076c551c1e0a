"""Bayesian personalised ranking: the target before each sampled negative.

Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback (UAI 2009), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys import lazy
from recsys.config.schema import Sampling
from recsys.losses import (
    ObjectiveContext,
    SampledObjectiveConfig,
    compute_pair_loss,
    require_output,
    select_target_and_negatives,
)
from recsys.types import Batch, Loss, Scored

if TYPE_CHECKING:
    import torch.nn.functional as F
else:
    F = lazy.import_lazily("torch.nn.functional")


@dataclass
class Config(SampledObjectiveConfig):
    """Settings of the pairwise ranking loss."""


class Objective:
    """-log sigmoid(target's score - negative's score), each pair counting once.

    Args:
        negatives: Negatives a query, for the loader.
        sampling: How the loader draws them.
    """

    def __init__(self, negatives: int, sampling: Sampling) -> None:
        """Keeps neither: what the loader has drawn is in the batch."""

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum and count over the pairs of a target and a negative.

        Known positives of the user, and repeats of the target, are no negatives.

        Args:
            scored: Scores (Q, C).
            batch: The batch; column 0 of its candidates is the target.
            around: Known positives.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = require_output(scored.scores, "bpr", "scores of candidates", "another one")
        target, negative = select_target_and_negatives(batch, around)
        # A target that must not count may have any score, also NaN: it is left out before.
        own = scores[:, :1].masked_fill(~target[:, None], 0.0)
        margin = own - scores[:, 1:]
        return compute_pair_loss(
            lambda clean: F.softplus(-clean), margin, negative, batch.importance
        )
