"""Softmax over the target and sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys import lazy
from recsys.config.schema import NegativeSpec, RunConfig, Sampling, option
from recsys.errors import ConfigError
from recsys.losses import (
    ObjectiveContext,
    SampledObjectiveConfig,
    compute_softmax_loss,
    get_candidate_items,
    require_output,
    select_target_and_negatives,
)
from recsys.types import Batch, Loss, Scored

if TYPE_CHECKING:
    import torch
else:
    torch = lazy.import_lazily("torch")


@dataclass
class Config(SampledObjectiveConfig):
    """Settings of the sampled softmax."""

    logq: float = option(
        0.0,
        "strength, 0 to 1, of the correction for sampling=frequency; no other has one",
        least=0,
        most=1,
    )
    label_smoothing: float = option(
        0.0, "share of the target's mass spread over the candidates, below 1", least=0, below=1
    )

    @property
    def draws(self) -> NegativeSpec:
        """The negatives that it asks for; logq counts on how they are drawn."""
        corrects = f"objective.logq={self.logq:g}" if self.logq else None
        return NegativeSpec(self.negatives, self.sampling, corrects)

    def check(self, run: RunConfig) -> None:
        """Refuses a correction where sampling needs none.

        Raises:
            ConfigError: It is asked for with negatives that are not drawn by frequency.
        """
        if self.logq and self.sampling != "frequency":
            raise ConfigError(
                f"objective.logq is {self.logq:g} with {self.sampling} sampling, which needs no "
                "correction; set objective.logq=0 or objective.sampling=frequency."
            )


class Objective:
    """Sampled softmax: column 0 against the other candidates.

    Args:
        negatives: Negatives a query, for the loader.
        sampling: How the loader draws them.
        logq: Strength of the correction, in [0, 1].
        label_smoothing: In [0, 1).
    """

    def __init__(
        self,
        negatives: int,
        sampling: Sampling,
        logq: float,
        label_smoothing: float,
    ) -> None:
        self.logq = logq
        self.smoothing = label_smoothing

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum over the queries with a case, a target and at least one negative left.

        Known positives of the user, and repeats of the target, are no negatives.

        Args:
            scored: Scores (Q, C).
            batch: The batch; column 0 of its candidates is the target.
            around: Frequencies and known positives.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = require_output(
            scored.scores, "sampled_softmax", "scores of candidates", "another one"
        )
        if self.logq:
            # one draw: the number of draws shifts all columns alike and drops out
            rows = get_candidate_items(batch).clamp(min=0)
            scores = scores - self.logq * around.log_share[rows]
        target, negative = select_target_and_negatives(batch, around)
        keep = torch.cat([target[:, None], negative], dim=1)
        first = torch.zeros_like(batch.case)
        return compute_softmax_loss(scores, first, keep, self.smoothing, batch.importance)
