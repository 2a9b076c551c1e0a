"""Binary cross-entropy of each user-item pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys import lazy
from recsys.config.schema import NegativeSpec, ObjectiveConfig, Output, option
from recsys.losses import (
    ObjectiveContext,
    compute_pair_loss,
    get_candidate_items,
    get_query_users,
    require_output,
)
from recsys.types import Batch, Loss, Scored

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
else:
    torch = lazy.import_lazily("torch")
    F = lazy.import_lazily("torch.nn.functional")


@dataclass
class Config(ObjectiveConfig):
    """Settings of the binary cross-entropy."""

    needs: ClassVar[Output] = "scores"
    reads_labels: ClassVar[bool] = True
    needs_unliked: ClassVar[bool] = True

    negatives: int = option(
        4,
        "negatives drawn for each query; 0 where the data has observed ones, as impressions do",
        least=0,
    )

    @property
    def draws(self) -> NegativeSpec:
        """The negatives that it asks for."""
        return NegativeSpec(self.negatives)


class Objective:
    """Binary cross-entropy on the labels.

    Args:
        negatives: Negatives a query, for the loader; 0 for observed labels only.
    """

    def __init__(self, negatives: int) -> None:
        self.drawn = negatives > 0

    def __call__(self, scored: Scored, batch: Batch, around: ObjectiveContext) -> Loss:
        """Sum and count over the pairs with a case and a candidate.

        A drawn negative that is a known positive of the user is left out; an observed label
        stands as the data has it.

        Args:
            scored: Scores (Q, C), as logits.
            batch: The batch, with labels (Q, C).
            around: Known positives.

        Raises:
            ConfigError: The architecture gives no scores.
        """
        scores = require_output(scored.scores, "bce", "scores of candidates", "objective in_batch")
        items = get_candidate_items(batch)
        valid = items >= 0
        if self.drawn:
            known = around.is_known_each(get_query_users(batch), items)
            drop = known & (batch.labels == 0)
            # Column 0 is what was observed, whatever the user thought of the item elsewhere.
            drop = torch.cat([torch.zeros_like(drop[:, :1]), drop[:, 1:]], dim=1)
            valid = valid & ~drop
        return compute_pair_loss(
            lambda clean: F.binary_cross_entropy_with_logits(
                clean, batch.labels.to(clean.dtype), reduction="none"
            ),
            scores,
            valid,
            batch.importance,
        )
