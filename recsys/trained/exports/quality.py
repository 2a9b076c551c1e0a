"""What a run's test metrics would be with other item vectors, as those of a quantised graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recsys.evaluation.ranking import Ranker
from recsys.trained.exports.opened import OpenedRun, Vectors

SHOWN = ("ndcg@10", "warm/ndcg@10", "cold/ndcg@10")
"""What is compared, where the run has it."""


class _OtherVectors:
    """A recommender that ranks by other representations of the catalog.

    Args:
        ranker: The recommender.
        catalog: (I, ...) as its `index_catalog` gives them.
    """

    def __init__(self, ranker: Ranker, catalog: Tensor) -> None:
        self._catalog = catalog
        self.needs_history = ranker.needs_history
        self.get_popularity = ranker.get_popularity
        self.select_directions = ranker.select_directions
        self.queries, self.score = ranker.queries, ranker.score
        self.score_candidates = ranker.score_candidates

    def index_catalog(self) -> Tensor:
        """(I, ...) what was given."""
        return self._catalog


def can_measure(opened: OpenedRun) -> bool:
    """Whether there are test cases, and users who are made of item vectors."""
    config = opened.run.config
    return config.evaluation.test and not config.architecture.reads_user_texts


@torch.no_grad()
def measure_ranking(opened: OpenedRun, vectors: Vectors) -> dict[str, float]:
    """Test metrics of a run with other vectors of its items, users' histories included.

    Args:
        opened: The run; `can_measure` holds.
        vectors: (I, D) in place of its own.

    Returns:
        Those of `SHOWN` that it has, as shares.
    """
    recommender = opened.made.recommender.eval()
    catalog = opened.catalog.clone()
    catalog[:, : vectors.shape[1]] = torch.from_numpy(vectors)
    ranker, evaluator = recommender.ranker, recommender.make_evaluator()
    evaluator.start(_OtherVectors(ranker, catalog))
    for batch in opened.made.datamodule.test_dataloader():
        evaluator.step(ranker, batch)
    metrics = evaluator.end()
    return {name: metrics[name] for name in SHOWN if not math.isnan(metrics.get(name, math.nan))}
