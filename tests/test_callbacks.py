"""What watches a training, one callback at a time."""

from types import SimpleNamespace

import lightning.pytorch as lp
import numpy as np
import pytest
import torch

from recsys import build, optim
from recsys.callbacks import Bar, BatchSeed
from recsys.config import compose
from recsys.fit import main


def trainer_at(epoch):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(current_epoch=epoch, global_rank=1, strategy=strategy)


def test_a_batch_is_seeded_by_its_place_and_no_device_is_asked_that_does_not_train(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a GPU was asked"))
    for batch in range(3):
        BatchSeed(3).on_train_batch_start(trainer_at(2), None, None, batch)
        drawn = torch.rand(4)
        key = [3, 2, batch, 1]
        torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        assert torch.equal(torch.rand(4), drawn)


@pytest.fixture
def bar(monkeypatch):
    """A bar that counts how often it draws."""
    drawn = []
    monkeypatch.setattr(
        lp.callbacks.RichProgressBar, "on_train_batch_end", lambda *a: drawn.append(a[-1])
    )
    return Bar(), drawn


def test_the_bar_draws_now_and_then_and_after_the_last_batch(bar, monkeypatch):
    made, drawn = bar
    clock = iter(np.arange(1000.0, 1010.0, 0.03))
    monkeypatch.setattr("recsys.callbacks.time.monotonic", lambda: next(clock))
    trainer = SimpleNamespace(num_training_batches=10)
    for batch in range(10):
        made.on_train_batch_end(trainer, None, None, None, batch)
    assert drawn == [0, 4, 8, 9]


def test_the_bar_shows_the_last_loss(shop_words, bar):
    model = build.assemble(compose([*shop_words, "tuning=frozen"])).recommender
    made, _ = bar
    assert made.get_metrics(None, model) == {}
    model.window.add(torch.tensor([2.46912, 2.0]), begins=True, ends=True)
    assert made.get_metrics(None, model) == {"loss": 1.2346}


def test_fused_steps_equal_plain_ones():
    torch.manual_seed(0)
    start = torch.randn(5, 3)
    found = []
    for fused in (True, False):
        p = torch.nn.Parameter(start.clone())
        group = [{"params": [p], "lr": 0.1, "weight_decay": 0.1}]
        if fused:
            optimizer, _ = optim.adamw(group, (0.9, 0.99), 10, 0.0, "constant")
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
