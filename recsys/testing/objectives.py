"""What every objective keeps: it can be learned, and is refused where it lacks what it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.assembly.assembled import Assembly
from recsys.config.compose import compose
from recsys.data.batches.negatives import PoolSampler
from recsys.errors import ConfigError
from recsys.recommender.trainable import require_trainable
from recsys.testing.contract import WAYS, Contract, learn_by_heart
from recsys.types import Batch

LABELLED = ("data.targets=labelled", "data.positive_from=3", "data.source.rating=stars")


class ObjectiveContract(Contract):
    """Inherit it and name the `choice`, with the `settings` that it needs."""

    @pytest.mark.parametrize("way", [*WAYS, "mlp"])
    def test_a_batch_is_learned_by_heart(self, way: str) -> None:
        """A few queries whose targets differ: the loss falls, and the targets come first."""
        architecture = WAYS.get(way, ("architecture=two_tower", "architecture.score=mlp"))
        own = [f"objective.{word}" for word in self.settings]
        words = [*architecture, f"objective={self.choice}", *own, "tuning=full"]
        objective = compose(words).objective
        assert objective is not None, "every architecture of `way` trains"
        gives = compose(words).architecture.gives
        if objective.needs not in gives:
            with pytest.raises(ConfigError, match=f"needs {objective.needs}"):
                self.assemble(*words)
            return
        if objective.reads_labels and not objective.draws.count:
            words += LABELLED  # of liked events alone there is nothing to tell apart
        made = self.assemble(*words)
        batch = make_batch(made, 8 if objective.draws.count or objective.reads_labels else 0)
        # One score at a time needs its scale as well as the order, and takes longer.
        rate = 3e-3 if objective.reads_labels else 6e-3
        assert learn_by_heart(made.recommender.eval(), batch, rate) < 0.02
        if objective.needs == "queries":
            check_in_batch(made, batch)
        elif objective.needs == "table":
            check_catalog(made, batch)
        elif objective.draws.count:
            check_lists(made, batch)


def make_batch(made: Assembly, negatives: int) -> Batch:
    """The last queries of the first six users, who like a colour each: no two ask the same.

    Args:
        made: The run.
        negatives: Drawn for each query; 0 for none.
    """
    examples = made.examples
    rows = examples.make_train_rows("last", np.sort(examples.sample_epoch("last", 1, 0, 0))[:6])
    sampler = PoolSampler(examples.get_pool("uniform"))
    drawn = sampler.sample(rows, negatives, 0, 0) if negatives else None
    return examples.make_batch(rows, made.datamodule.sizes, drawn)


def check_in_batch(made: Assembly, batch: Batch) -> None:
    """Each query's target comes before the targets of the others."""
    model = made.recommender
    with torch.no_grad():
        items = model.index(batch.plan)
        scores = model.score(model.queries(batch, items), items)[:, batch.candidates[:, 0]]
    assert (scores.argmax(1) == torch.arange(len(scores))).all()


def check_catalog(made: Assembly, batch: Batch) -> None:
    """Each query's target comes before all that training has seen."""
    model = made.recommender
    with torch.no_grad():
        queries = model.queries(batch, model.index(batch.plan))
        scores = model.score(queries, model.index_catalog())
    scores = scores.masked_fill(model.parts.counts == 0, -torch.inf)
    assert (scores.argmax(1) == batch.plan.items[batch.candidates[:, 0]]).all()


def check_lists(made: Assembly, batch: Batch) -> None:
    """Each query's target comes before the drawn negatives that the user does not like too."""
    model = made.recommender
    with torch.no_grad():
        items = model.index(batch.plan)
        own = model.score_candidates(batch, items)
    rows = batch.plan.items[batch.candidates.clamp(min=0)]
    liked = require_trainable(model).get_objective_context().is_known_each(batch.users, rows)
    liked[:, 0] = False
    own = own.masked_fill(liked | (batch.candidates < 0), -torch.inf)
    assert (own.argmax(1) == 0).all()
