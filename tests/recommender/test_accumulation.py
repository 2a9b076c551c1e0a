"""A step of several batches is the step of one batch with all their queries."""

import random

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys.data.batches.batching import BatchPlan, TokenBudgetPlan
from recsys.fit.__main__ import main
from recsys.recommender.stepped import AccumulationWindow
from recsys.training.datamodule import RecDataModule

# Losses without interaction in the batch, and what else acts once a step.
OBJECTIVES = {
    "bce": ["objective=bce", "objective.negatives=3"],
    "sampled_softmax": ["objective=sampled_softmax", "objective.negatives=3"],
    "weighed": [
        "objective=bpr",
        "objective.negatives=2",
        "data.event_column=kind",
        "data.event_types={view: 0.1, buy: 5}",
    ],
    "bpr_pulled": ["objective=bpr", "objective.negatives=2", "regularization.l2_sp=0.5"],
}


@pytest.fixture
def words(shop, shop_base, tmp_path, monkeypatch):
    """A shop whose users have from 4 to 12 events, so that batches of users count differently."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    rng = random.Random(3)
    rows = ["who,what,when,kind"]
    for user in range(40):
        bought = rng.sample(range(30), rng.randint(4, 12))
        for t, item in enumerate(bought):
            kind = "buy" if (user + t) % 3 else "view"
            rows.append(f"u{user},0{item:02d},{10 * user + t},{kind}")
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n")
    own = [word for word in shop_base if not word.startswith("data.source.interactions")]
    return [
        *own,
        f"data.source.interactions={tmp_path / 'events.csv'}",
        "data.queries=all",
        "tuning=lora",
        "regularization.dropout=0",
        "optimizer.lr=0.0002",
        "optimizer.clip=0.5",
        "trainer.epochs=2",
        "trainer.threads=1",
        "trainer.precision=fp32",
        "trainer.log_every=1",
        "tracking.wandb=off",
        "evaluation.test=false",
    ]


def fitted(words, output, *more):
    """What a run logged, and what it trained."""
    assert main([*words, *more, f"output={output}"]) == 0
    (folder,) = output.iterdir()
    log = pl.read_csv(folder / "log" / "metrics.csv")
    return log.drop("seconds"), load_file(folder / "checkpoints" / "best.safetensors")


def assert_same(one, other, steps):
    """Losses, gradient norms, rates and distances of every step, and the weights."""
    (log, weights), (log_other, weights_other) = one, other
    assert log.columns == log_other.columns
    assert log["train/loss"].drop_nulls().len() == steps
    for name in log.columns:
        a, b = (x[name].cast(pl.Float64).fill_null(-1.0).to_torch() for x in (log, log_other))
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True), name
    assert weights.keys() == weights_other.keys()
    for name, value in weights.items():
        assert torch.allclose(value, weights_other[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_accumulated_batches_step_as_one_large_batch(words, tmp_path, objective):
    """40 users: windows of 9, 9, 9, 9 and 4 users, the last one of two batches."""
    words = [*words, *OBJECTIVES[objective], "checkpoint.pick=last"]
    large = fitted(words, tmp_path / "large", "trainer.batch_size=9")
    cut = ["trainer.batch_size=3", "trainer.accumulate=3"]
    assert_same(large, fitted(words, tmp_path / "cut", *cut), steps=10)


class Joined(BatchPlan):
    """Every so many batches of another plan as one."""

    def __init__(self, plan, parts):
        super().__init__(plan.order)
        self.plan, self.parts = plan, parts

    def count_batches(self, epoch):
        return -(-self.plan.count_batches(epoch) // self.parts)

    def make_batches(self, epoch):
        found = self.plan.make_batches(epoch)
        return [np.concatenate(found[i : i + self.parts]) for i in range(0, len(found), self.parts)]

    def count_earlier_batches(self, epoch):
        return sum(self.count_batches(earlier) for earlier in range(epoch))

    def count_steps(self, epochs, accumulate, most):
        return self.plan.count_steps(epochs, self.parts, most)


def test_accumulated_batches_of_tokens_step_as_one_large_batch(words, tmp_path, monkeypatch):
    words = [*words, *OBJECTIVES["bce"], "trainer.batch_tokens=250", "checkpoint.pick=last"]
    original, plans = RecDataModule.plan.func, []

    def joined(self):
        plans.append(original(self))
        return Joined(plans[-1], 3)

    with monkeypatch.context() as patch:
        patch.setattr(RecDataModule, "plan", property(joined))
        large = fitted(words, tmp_path / "large")
    assert isinstance(plans[0], TokenBudgetPlan)
    lengths = [plans[0].count_batches(epoch) for epoch in range(2)]
    assert any(length % 3 for length in lengths)
    assert min(lengths) > 3
    cut = fitted(words, tmp_path / "cut", "trainer.accumulate=3")
    assert_same(large, cut, steps=sum(-(-length // 3) for length in lengths))


def test_gradients_are_brought_to_the_count_of_the_window():
    window, p = AccumulationWindow(), torch.nn.Parameter(torch.zeros(2))
    assert window.loss is None
    for parts in ([(6.0, 3.0)], [(0.0, 0.0), (4.0, 2.0)], [(2.0, 4.0), (6.0, 1.0), (0.0, 0.0)]):
        p.grad = torch.zeros(2)
        for place, (total, count) in enumerate(parts):
            last = place + 1 == len(parts)
            window.add(torch.tensor([total, count]), begins=place == 0, ends=last)
            p.grad += total / window.unit  # as if each loss were its sum times the parameter
            window.rescale([p])
        mean = sum(total for total, _ in parts) / sum(count for _, count in parts)
        assert torch.allclose(p.grad, torch.full((2,), mean))
        assert float(window.loss) == pytest.approx(mean)
    window.add(torch.zeros(2), begins=True, ends=True)
    assert float(window.loss) == 0
    assert window.share is None


def test_a_window_of_small_weights_is_no_window_of_one():
    """Counts may be weights: only a count of nothing is replaced."""
    window = AccumulationWindow()
    window.add(torch.tensor([0.02, 0.01]), begins=True, ends=True)
    assert float(window.loss) == pytest.approx(2.0)
