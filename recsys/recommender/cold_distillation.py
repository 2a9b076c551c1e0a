"""Scores of cold items, drawn towards what they were before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recsys.losses import require_output
from recsys.types import Batch, ItemBatch, Scored, upload

SAMPLE = 64
"""Cold items that a batch draws, with replacement; the same for all of its queries."""


class Distilled(Protocol):
    """What is asked of a recommender: its batch's queries, items, scores and parameters."""

    training: bool
    __call__: Any

    def eval(self) -> Any:  # noqa: ANN401 (as a Module has it)
        """Turns dropout off."""
        ...

    def train(self, mode: bool = True) -> Any:  # noqa: ANN401 (as a Module has it)
        """Turns it on."""
        ...

    def index(self, plan: ItemBatch) -> Tensor:
        """Representations of a plan's items, (U, ...)."""
        ...

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores of every query with every item, (Q, N)."""
        ...

    def get_trained_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, by name."""
        ...


@contextmanager
def _exchange_weights(model: Distilled, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Puts other values into a model's parameters for a while, by name.

    The tensors are exchanged, not written: what is kept for a backward pass stays what it was.
    """
    own = {name: p for name, p in model.get_trained_parameters().items() if name in values}
    kept = {name: p.data for name, p in own.items()}
    try:
        for name, p in own.items():
            p.data = values[name]
        yield
    finally:
        for name, p in own.items():
            p.data = kept[name]


class ColdDistillation:
    """Half the squared difference of scores from those that the same query had before training.

    Over items that training never shows: no loss says anything of them, and what is learned of
    others moves them. The start is the teacher, as in learning without forgetting (Li and Hoiem,
    ECCV 2016): an encoder that fits its texts, with heads that change nothing. Texts of cold items
    are read in training by it, their events never.

    Args:
        strength: What the mean over queries and items counts beside the objective's mean.
        rows: (N,) catalog rows of the cold items, on the host; at least one.
    """

    def __init__(self, strength: float, rows: Tensor) -> None:
        self.strength, self.rows = strength, rows

    def draw_items(self, device: torch.device) -> ItemBatch:
        """Some of the cold items, by torch's random numbers."""
        places = torch.randint(len(self.rows), (SAMPLE,))
        drawn = torch.unique(self.rows[places], sorted=True)
        return ItemBatch(upload(drawn, device), (), host=drawn)

    def compute_scores(self, model: Distilled, scored: Scored, items: ItemBatch) -> Tensor:
        """(Q, N) scores of a batch's queries with the items."""
        queries = require_output(
            scored.queries, "with cold_distillation", "query vectors", "an architecture with them"
        )
        return model.score(queries, model.index(items))

    @torch.no_grad()
    def compute_start_scores(
        self,
        model: Distilled,
        batch: Batch,
        items: ItemBatch,
        start: Mapping[str, Tensor],
    ) -> Tensor:
        """(Q, N) scores under the parameters of the start, without dropout."""
        was = model.training
        model.eval()
        with _exchange_weights(model, start):
            scores = self.compute_scores(model, model(batch), items)
        model.train(was)
        return scores

    def compute_pull(self, scores: Tensor, start: Tensor, batch: Batch) -> Tensor:
        """() strength times half the mean square over the queries that count.

        Args:
            scores: (Q, N) as they are.
            start: (Q, N) as they were.
            batch: Whose queries they are; fillers count nothing.
        """
        counted = (batch.case >= 0)[:, None]
        square = torch.where(counted, (scores.float() - start.float()).square(), 0.0)
        pairs = counted.sum().clamp(min=1) * scores.shape[1]
        return 0.5 * self.strength * square.sum() / pairs
