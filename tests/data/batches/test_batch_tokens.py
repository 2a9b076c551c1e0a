"""A step by tokens: the budget holds, N processes see what one sees, a stopped run goes on."""

import json
import os
import signal

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.batches.batching import FixedSizePlan, TokenBudgetPlan, compute_token_ends
from recsys.data.batches.loader import EpochBatchSampler
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommender.trainable import TrainableRecommender


@pytest.fixture
def words(shop_words, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    more = ["trainer.batch_tokens=44", "trainer.epochs=3", "trainer.log_every=1"]
    return [*shop_words, *more, "tracking.wandb=off"]


def slow_ends(items, counts, costs, extra, budget):
    """One example after the other."""
    examples = np.split(items, np.cumsum(counts)[:-1])
    ends, inside, drawn = [], set(), 0
    for n, example in enumerate(examples):
        more = inside | set(example.tolist())
        if n > (ends[-1] if ends else 0) and (
            sum(costs[i] for i in more) + drawn + extra[n] > budget
        ):
            ends.append(n)
            more, drawn = set(example.tolist()), 0
        inside, drawn = more, drawn + extra[n]
    return [*ends, len(counts)]


@pytest.mark.parametrize("seed", range(8))
def test_slices_are_those_of_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, 400)
    items = rng.integers(0, [30, 900][seed % 2], counts.sum())
    costs = rng.integers(1, 20, 900)
    extra = rng.integers(0, 5, 400) * (seed % 3)
    for budget in (1, 60, 300, 10**9):
        found = compute_token_ends(items, counts, costs, extra, budget)
        assert found.tolist() == slow_ends(items, counts, costs, extra, budget)
    assert len(compute_token_ends(items[:0], counts[:0], costs, extra[:0], 9)) == 0


@pytest.mark.parametrize("queries", ["all", "random", "last"])
def test_a_step_encodes_no_more_than_its_budget_and_the_next_example_would_not_fit(words, queries):
    data = build.assemble(compose([*words, f"data.queries={queries}"])).datamodule
    data.costs = data.costs + np.arange(30) % 4  # texts of different lengths

    def cost(at):
        return int(data.costs[data.make_train_batch(at, epoch).plan.items.numpy()].sum())

    for epoch in range(3):
        batches = data.plan.make_batches(epoch)
        assert np.array_equal(np.concatenate(batches), data.make_epoch_order(epoch))
        assert len(batches) == data.plan.count_batches(epoch) > 3
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            assert cost(batch) <= 44 or len(batch) == 1
            if following is not None:
                assert cost(np.concatenate([batch, following[:1]])) > 44


def test_an_encoder_counts_special_tokens_and_cuts(words):
    made = build.assemble(compose(words))
    assert made.datamodule.costs.tolist() == [4] * 30  # two words, [CLS] and [SEP]
    cut = build.assemble(compose([*words, "encoder.max_length=3"]))
    assert cut.datamodule.costs.tolist() == [3] * 30


def test_negatives_count_with_the_mean_length(words):
    more = ["objective=sampled_softmax", "objective.negatives=5"]
    plain = build.assemble(compose([*words, "trainer.batch_tokens=64"])).datamodule
    drawn = build.assemble(compose([*words, *more, "trainer.batch_tokens=64"])).datamodule
    assert drawn.plan.count_batches(0) > plain.plan.count_batches(0)
    for batch in drawn.plan.make_batches(0):
        without = plain.costs[plain.make_train_batch(batch, 0).plan.items.numpy()].sum()
        assert without + 4 * 5 * len(batch) <= 64


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_of_one(words, world):
    plan = build.assemble(compose(words)).datamodule.plan
    for epoch in range(3):
        readers = [EpochBatchSampler(plan, rank, world) for rank in range(world)]
        for reader in readers:
            reader.set_epoch(epoch)
        assert {len(reader) for reader in readers} == {plan.count_batches(epoch)}
        for want, *shares in zip(plan.make_batches(epoch), *readers, strict=True):
            real = [at for _, at, filler in shares if not filler]
            assert sorted(np.concatenate(real)) == sorted(want)
            assert all(len(at) == 1 and at[0] in want for _, at, filler in shares if filler)


def test_reading_begins_where_the_counters_say(words):
    plan = build.assemble(compose(words)).datamodule.plan
    lengths = [plan.count_batches(epoch) for epoch in range(3)]
    assert len(set(lengths)) > 1  # else this would show nothing
    for epoch in range(3):
        for first in (0, 2, lengths[epoch]):
            done = sum(lengths[:epoch]) + first
            reader = EpochBatchSampler(plan, 0, 1, lambda e=epoch, d=done: (e, d))
            assert len(reader) == lengths[epoch]
            got = [at.tolist() for _, at, _ in reader]
            assert got == [at.tolist() for at in plan.make_batches(epoch)[first:]]
    with pytest.raises(RuntimeError, match="cannot begin"):
        iter(EpochBatchSampler(plan, 0, 1, lambda: (1, lengths[0] + lengths[1] + 1)))


def test_steps_are_the_sum_over_the_epochs():
    lengths = [5, 3, 4]
    plan = TokenBudgetPlan(lambda e: np.arange(lengths[e]), lambda epoch, order: order + 1)
    assert [plan.count_earlier_batches(e) for e in range(4)] == [0, 5, 8, 12]
    assert plan.count_steps(3, 1, -1) == 12
    assert plan.count_steps(3, 2, -1) == 3 + 2 + 2
    assert (plan.count_steps(3, 1, 7), plan.count_steps(3, 1, 70)) == (7, 12)
    fixed = FixedSizePlan(lambda e: np.arange(10), 10, 4)
    assert [len(b) for b in fixed.make_batches(0)] == [4, 4, 2]
    assert (
        fixed.count_earlier_batches(2),
        fixed.count_steps(3, 2, -1),
        fixed.count_steps(3, 1, 7),
    ) == (6, 6, 7)


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    log = pl.read_csv(folder / "log" / "metrics.csv", infer_schema=False)
    weights = load_file(folder / "checkpoints/best.safetensors")
    test = {k: v for k, v in result["test"].items() if v == v}
    return log.drop("seconds").to_dicts(), test, {k: v.tolist() for k, v in weights.items()}


def broken_at(monkeypatch, steps):
    """SIGTERM in these training steps, counted over all epochs; the epochs seen, in order."""
    original, epochs = TrainableRecommender.training_step, []

    def step(self, batch, batch_idx):
        out = original(self, batch, batch_idx)
        epochs.append(self.trainer.current_epoch)
        if len(epochs) in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return out

    monkeypatch.setattr(TrainableRecommender, "training_step", step)
    return epochs


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["trainer.accumulate=3"], ["trainer.max_steps=20"]])
def test_a_stopped_run_ends_as_an_unbroken_one(words, tmp_path, monkeypatch, more):
    words = [*words, *more, "optimizer.schedule=linear", "tuning.dropout=0.3"]
    plan = build.assemble(compose(words)).datamodule.plan
    lengths = [plan.count_batches(epoch) for epoch in range(3)]
    with monkeypatch.context() as patch:
        epochs = broken_at(patch, set())
        assert main([*words, f"output={tmp_path / 'straight'}"]) == 0
        (folder,) = (tmp_path / "straight").iterdir()
    expected = outcome(folder)
    if not any("max_steps" in word for word in more):
        assert [epochs.count(epoch) for epoch in range(3)] == lengths
        # The schedule ends with the training: the last step has the last rate above zero.
        steps = plan.count_steps(3, 3 if more else 1, -1)
        rates = [float(row["lr/tuned"]) for row in expected[0] if row.get("lr/tuned")]
        assert len(rates) == steps
        assert 0 < rates[-1] < 2.5 * 0.01 / steps
    # In the first epoch, at the end of the second, and early in what follows.
    stops = {4, lengths[0] + lengths[1], lengths[0] + lengths[1] + 2}
    with monkeypatch.context() as patch:
        broken_at(patch, stops)
        code, output = main(words), tmp_path / "runs"
        for _ in stops:
            if code == 143:
                code = main(["resume=last", f"output={output}"])
        assert code == 0
    (folder,) = output.iterdir()
    assert json.loads((folder / "result.json").read_text())["cost"]["resumes"] >= 1
    assert outcome(folder) == expected


def test_texts_of_users_are_not_counted_and_refused(words):
    with pytest.raises(ConfigError, match=r"trainer\.batch_size"):
        build.assemble(compose([*words, "architecture=two_tower", "architecture.user=text"]))
