"""Scores of cold items stay near what they were before training, as strongly as is asked for."""

import json

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.types import ItemBatch

KEY = "regularization.cold_distillation"
FEW = "data.train_users=4"  # of 40, so that most of the 30 items are never seen in training
TWO = ["architecture=two_tower", "tuning=frozen", "data.queries=all", FEW]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def begin(words, *more):
    """A model at the start of a training, a batch of it and the rows that it never shows."""
    made = build.assemble(compose([*words, *more]))
    model, examples = made.recommender, made.examples
    model.setup("fit")
    at = np.sort(examples.sample_epoch("all", 1, 0, 0))
    batch = examples.make_batch(examples.make_train_rows("all", at), made.datamodule.sizes)
    return model, batch, (model.parts.train_counts == 0).nonzero()[:, 0]


def score(model, batch, rows):
    with torch.no_grad():
        return model.score(model(batch).queries, model.index(ItemBatch(rows, ())))


def compute_objective(model, batch):
    return model.parts.objective(model(batch), batch, model.get_objective_context())


def test_scores_of_cold_items_move_less_and_others_learn(shop_words):
    moved, losses = [], []
    for more in ([], [f"{KEY}=3"]):
        model, batch, cold = begin(shop_words, *TWO, *more)
        before, first = score(model, batch, cold), compute_objective(model, batch).total.item()
        optimizer = torch.optim.Adam(model.get_trained_parameters().values(), lr=0.003)
        for _ in range(15):
            optimizer.zero_grad()
            loss = model.compute_loss(batch)
            (loss.total / loss.count).backward()
            optimizer.step()
        moved.append((score(model, batch, cold) - before).abs().mean())
        losses.append(compute_objective(model, batch).total.item() / first)
    assert moved[1] < 0.5 * moved[0]
    assert max(losses) < 0.95


@pytest.mark.parametrize("more", [[], ["tuning=lora"], ["architecture.user=text"]])
def test_what_it_adds_is_half_the_mean_square(shop_words, more):
    quiet = ["regularization.dropout=0.0"] if more else []
    model, batch, cold = begin(shop_words, *TWO, *more, f"{KEY}=2", *quiet)
    start, plain = score(model, batch, cold), compute_objective(model, batch)
    assert model.compute_loss(batch).total.item() == pytest.approx(plain.total.item(), rel=1e-4)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.get_trained_parameters().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    items = model.parts.cold_distillation.draw_items(model.device).items
    assert set(items.tolist()) <= set(cold.tolist())
    torch.manual_seed(1)
    items = model.parts.cold_distillation.draw_items(model.device).items
    places = torch.searchsorted(cold, items)
    square = (score(model, batch, cold) - start)[:, places].square().mean().item()
    plain = compute_objective(model, batch)
    torch.manual_seed(1)
    loss = model.compute_loss(batch)
    assert square > 0.01
    added = (loss.total - plain.total).item()
    assert added == pytest.approx(square * plain.count.item(), rel=1e-3)
    assert model.training  # as it was
    loss.total.backward()
    assert all(p.grad is not None for p in model.get_trained_parameters().values())


def test_without_it_nothing_is_drawn(shop_words):
    model, batch, _ = begin(shop_words, *TWO)
    assert model.parts.cold_distillation is None
    state = torch.get_rng_state()
    model.compute_loss(batch)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_with_it_counts_what_it_reads(shop_words, tmp_path):
    flops = []
    for name, more in (("without", []), ("with", [f"{KEY}=0.1"])):
        words = [w for w in shop_words if not w.startswith("output=")]
        own = ["tuning=lora", FEW, "trainer.max_steps=3", f"output={tmp_path / name}"]
        assert main([*words, *own, *more]) == 0
        (result,) = (tmp_path / name).glob("*/result.json")
        flops.append(json.loads(result.read_text())["cost"]["train_flops"])
    assert flops[1] > 1.5 * flops[0]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["architecture.item=id"], "architecture two_tower has not both here"),
        (["architecture=late_interaction", "objective=bce"], "late_interaction has not both here"),
        (["tuning=lora", "trainer.encoder_updates=half_epoch"], "set trainer.encoder_updates="),
        (["data.train_users=40"], "it shows all of them"),
    ],
)
def test_what_cannot_be_is_refused(shop_words, more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build.assemble(compose([*shop_words, *TWO, f"{KEY}=0.1", *more]))
