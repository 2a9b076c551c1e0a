"""A user from a text: the titles of the history are read as tokens, and never encoded alone."""

import dataclasses

import pytest
import torch

from recsys import build
from recsys.config import compose
from recsys.types import ItemBatch


@pytest.mark.parametrize("objective", ["in_batch", "sampled_softmax"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_only_candidates_are_encoded_and_nothing_else_changes(shop_words, objective, towers):
    words = ["architecture.user=text", f"architecture.towers={towers}", f"objective={objective}"]
    words += ["tuning=full", "trainer.batch_size=2"]
    made = build.assemble(compose([*shop_words, *words]))
    model = made.recommender.eval()
    batch = next(iter(made.datamodule.train_dataloader()))
    asked = batch.plan.candidates()
    assert 0 < len(asked.items) < len(batch.plan.items)
    model.work.counting = True
    around = made.recommender.parts.around(model.score)
    found = []
    for first in (len(asked.items), None):
        # Without a number of candidates the whole plan is encoded.
        plan = ItemBatch(batch.plan.items, batch.plan.sizes, first=first)
        now = dataclasses.replace(batch, plan=plan)
        before = model.work.texts
        model.zero_grad()
        loss = model.parts.objective(model(now), now, around).total
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(loss), grads, model.work.texts - before))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert (found[0][1] - found[1][1]).norm() < 1e-5 * found[1][1].norm()
    assert found[0][2] == len(asked.items) + len(batch.query)
    assert found[1][2] == len(batch.plan.items) + len(batch.query)
