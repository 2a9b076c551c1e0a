"""Generalised binary cross-entropy: sampled negatives without overconfidence.

Petrov and Macdonald, gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with
Negative Sampling (RecSys 2023), section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys import lazy
from recsys.config.schema import NegativeSpec, Sampling, option
from recsys.errors import ConfigError
from recsys.losses import (
    ObjectiveContext,
    SampledObjectiveConfig,
    compute_pair_loss,
    require_output,
    select_target_and_negatives,
)
from recsys.types import Batch, Loss, Scored

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
else:
    torch = lazy.import_lazily("torch")
    F = lazy.import_lazily("torch.nn.functional")


@dataclass
class Config(SampledObjectiveConfig):
    """Settings of the generalised binary cross-entropy."""

    calibration: float = option(
        0.75,
        "t of the paper, 0 to 1: 0 is the binary cross-entropy, 1 undoes what drawing "
        "few negatives does to the probabilities; only with sampling=uniform",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        """Refuses what the calibration is not derived for, as soon as both are known.

        Raises:
            ConfigError: It is asked for with negatives that are not drawn uniformly.
        """
        if self.sampling != "uniform" and self.calibration:
            raise ConfigError(
                f"objective.calibration={self.calibration:g} counts on every item being drawn "
                f"alike, and objective.sampling={self.sampling} does not; set "
                "objective.calibration=0 or objective.sampling=uniform."
            )

    @property
    def draws(self) -> NegativeSpec:
        """The negatives that it asks for; it counts on their being drawn among all items."""
        corrects = f"objective.calibration={self.calibration:g}" if self.calibration else None
        return NegativeSpec(self.negatives, self.sampling, corrects)


class Objective:
    """Binary cross-entropy with the target's probability raised to a power below 1.

    Args:
        negatives: Negatives a query, for the loader and the sampling rate.
        sampling: How the loader draws them.
        calibration: t, in [0, 1].
    """

    def __init__(self, negatives: int, sampling: Sampling, calibration: float) -> None:
        self.negatives = negatives
        self.calibration = calibration

    def compute_power(self, items: Tensor) -> Tensor:
        """() beta, the power of the target's probability.

        alpha ((1 - 1 / alpha) t + 1 / alpha) of the paper is 1 - t (1 - alpha). The sampling rate
        alpha is the share of the other items that is drawn, at most 1.

        Args:
            items: () how many items negatives are drawn from, the target among them.
        """
        alpha = (self.negatives / (items - 1).clamp(min=1)).clamp(max=1)
        return 1 - self.calibration * (1 - alpha)

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum and count over targets and negatives, each counting once.

        Known positives of the user, and repeats of the target, are no negatives.

        Args:
            scored: Scores (Q, C), as logits.
            batch: The batch; column 0 of its candidates is the target.
            around: Known positives, and the items that negatives are drawn from.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = require_output(scored.scores, "gbce", "scores of candidates", "objective in_batch")
        target, negative = select_target_and_negatives(batch, around)
        power = self.compute_power(around.seen.sum())

        def compute_losses(clean: Tensor) -> Tensor:
            # log(sigmoid(s)^beta) is beta log sigmoid(s): nothing is raised, nothing overflows
            own = power.to(clean.dtype) * F.softplus(-clean[:, :1])
            return torch.cat([own, F.softplus(clean[:, 1:])], dim=1)

        valid = torch.cat([target[:, None], negative], dim=1)
        return compute_pair_loss(compute_losses, scores, valid, batch.importance)
