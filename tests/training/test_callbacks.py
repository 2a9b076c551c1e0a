"""What watches a training, one callback at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.fit.__main__ import main
from recsys.recommender import optim
from recsys.training.seeding import BatchSeeder


def trainer_at(epoch):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(current_epoch=epoch, global_rank=1, strategy=strategy)


def test_a_batch_is_seeded_by_its_place_and_no_device_is_asked_that_does_not_train(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was asked"))
    for batch in range(3):
        BatchSeeder(3).on_train_batch_start(trainer_at(2), None, None, batch)
        drawn = torch.rand(4)
        key = [3, 2, batch, 1]
        torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        assert torch.equal(torch.rand(4), drawn)


def test_fused_steps_equal_plain_ones():
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    found = []
    for fused in (True, False):
        p = torch.nn.Parameter(start.clone())
        group = [{"params": [p], "lr": 0.1, "weight_decay": 0.1}]
        if fused:
            optimizer, _ = optim.make_adamw(group, (0.9, 0.99), 10, 0.0, "constant")
        else:
            optimizer = torch.optim.AdamW(group, betas=(0.9, 0.99), fused=False, foreach=False)
        for step in range(4):
            p.grad = torch.sin(p.detach() + step)
            optimizer.step()
        found.append(p.detach())
    assert torch.allclose(*found, atol=1e-6)


def test_gradients_are_clipped_under_mixed_precision(shop_words):
    """Lightning refuses to clip what an optimiser offers to unscale itself."""
    words = ["trainer.precision=bf16-mixed", "optimizer.clip=0.5", "tuning=frozen"]
    assert main([*shop_words, *words, "trainer.epochs=1"]) == 0
