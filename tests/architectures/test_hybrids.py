"""Texts with learned rows and a popularity prior: what training never shows keeps to its text."""

import json

import numpy as np
import pytest
import torch

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.recommend.__main__ import main as recommend
from recsys.runtime.files import BEST
from recsys.testing import ArchitectureContract
from recsys.trained.run import TrainedRun
from recsys.types import ItemBatch

FEW = "data.train_users=4"  # of 40, so that most of the 30 items are never seen in training
TWO = ["architecture=two_tower", "tuning=frozen", "data.queries=all"]
BOTH = [*TWO, "architecture.item=text+id"]
DROPOUT, SHRINKAGE = "architecture.id_dropout=0.5", "architecture.id_shrinkage=3"
PRIOR = "architecture.popularity=true"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


class TestShrunkRowsAndPrior(ArchitectureContract):
    """One score, however it is asked for; the prior has a weight from the start."""

    choice = "two_tower"
    settings = ("item=text+id", "id_shrinkage=2", "popularity=true", "towers=separate")

    def assemble(self, *words):
        made = super().assemble(*words)
        if made.recommender.prior is not None:
            torch.nn.init.constant_(made.recommender.prior.weight, 0.5)
        return made


class TestPriorOfTextUsers(TestShrunkRowsAndPrior):
    settings = ("popularity=true", "popularity_cold=true", "user=text", "score=mlp")


class TestPriorOfProducts(TestShrunkRowsAndPrior):
    settings = ("popularity=true", "score=dot", "history=causal", "mix=false", "item=text+id")


def assembled(words, *more):
    return build.assemble(compose([*words, *more]))


def batch_of(made):
    examples = made.examples
    at = np.sort(examples.sample_epoch("all", 1, 0, 0))[:6]
    return examples.make_batch(examples.make_train_rows("all", at), made.datamodule.sizes)


def fill(vectors):
    """Vectors as training might leave them."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        vectors.copy_(torch.randn(vectors.shape, generator=generator))


def index(model, rows):
    with torch.no_grad():
        return model.index(ItemBatch(rows, ()))


def test_without_dropout_shrinkage_and_prior_all_is_as_before(shop_words):
    """To the bit, and the same parameters, also after a step."""
    outputs = []
    for more in ([], ["architecture.id_dropout=0", "architecture.id_shrinkage=0"]):
        made = assembled(shop_words, *BOTH, *more)
        model, batch = made.recommender.train(), batch_of(made)
        fill(model.ids.vectors)
        drawn = torch.get_rng_state()
        scored = model(batch)
        assert torch.equal(torch.get_rng_state(), drawn)
        outputs.append((scored, set(dict(model.named_parameters()))))
    (one, names), (two, others) = outputs
    assert torch.equal(one.scores, two.scores)
    assert torch.equal(one.items, two.items)
    assert names == others
    assert not [name for name in names if "prior" in name]


def test_a_row_counts_as_much_as_its_item_has_training_events(shop_words):
    made = assembled(shop_words, *BOTH, SHRINKAGE, FEW)
    plain = assembled(shop_words, *TWO, FEW).recommender.eval()
    model, rows = made.recommender.eval(), torch.arange(30)
    _, liked = made.examples.get_train_pairs()
    counts = np.bincount(liked, minlength=30)
    fill(model.ids.vectors)
    with torch.no_grad():
        shares = model.ids(rows) / model.ids.vectors
    expected = torch.from_numpy(counts / (counts + 3)).float()
    assert torch.allclose(shares, expected[:, None].expand_as(shares), atol=1e-6)
    unseen = torch.from_numpy(counts == 0)
    # Seen by users that this run does not train on, and so never seen by it.
    assert (unseen & (made.recommender.parts.counts > 0)).any()
    with torch.no_grad():
        assert not model.ids(rows)[unseen].any()
    as_text = torch.isclose(index(model, rows), index(plain, rows), atol=1e-6).all(1)
    assert torch.equal(as_text, unseen)


def test_unseen_rows_get_no_gradient_and_their_values_do_not_matter(shop_words):
    made = assembled(shop_words, *BOTH, SHRINKAGE, FEW, "objective=bce", "objective.negatives=4")
    model, batch = made.recommender.train(), batch_of(made)
    unseen = model.parts.train_counts == 0
    everything = torch.arange(30)
    model.ids(everything).square().sum().backward()
    assert not model.ids.vectors.grad[unseen].any()
    before = model(batch).scores
    with torch.no_grad():
        model.ids.vectors[unseen] = 1e6
    assert torch.equal(model(batch).scores, before)


def test_a_step_leaves_out_a_share_of_the_rows_and_evaluation_none(shop_words):
    made = assembled(shop_words, *BOTH, DROPOUT)
    plain = assembled(shop_words, *TWO).recommender.eval()
    whole = assembled(shop_words, *BOTH).recommender.eval()
    model, batch, rows = made.recommender, batch_of(made), torch.arange(30)
    for each in (model, whole):
        fill(each.ids.vectors)
    assert torch.equal(index(model.eval(), rows), index(whole, rows))
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        first = model(batch).items
        left_out = torch.isclose(index(model, rows), index(plain, rows), atol=1e-6).all(1)
        kept = torch.isclose(index(model, rows), index(whole, rows), atol=1e-6).all(1)
        # Targets, histories and what an objective asks for by row: a step leaves out the same.
        assert torch.equal(first, index(model, batch.plan.items))
        assert torch.equal(left_out, ~kept)
        shares = []
        for _ in range(200):
            model(batch)
            shares.append((model.ids(rows) == 0).all(1).float().mean())
    assert 0.4 < torch.stack(shares).mean() < 0.6
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.equal(model(batch).items, first)  # it is torch's own random numbers


def test_the_prior_begins_as_nothing_and_is_a_multiple_of_the_log_count(shop_words):
    made = assembled(shop_words, *TWO, PRIOR, FEW)
    plain = assembled(shop_words, *TWO, FEW)
    every = assembled(shop_words, *TWO, PRIOR, FEW, "architecture.popularity_cold=true")
    batch, rows = batch_of(made), torch.arange(30)
    with torch.no_grad():
        want = plain.recommender.eval()(batch)
        got = made.recommender.eval()(batch)
    assert torch.equal(got.scores, want.scores)
    assert torch.equal(got.queries, want.queries)
    for each in (made, every):
        torch.nn.init.constant_(each.recommender.prior.weight, 0.5)
    n = made.recommender.parts.train_counts
    seen, logs = n > 0, torch.log1p(n.float())
    z = (logs - logs[seen].mean()) / logs[seen].std(correction=0)
    assert not seen.all()
    with torch.no_grad():
        base = plain.recommender.score(want.queries, index(plain.recommender, rows))
        for each, values in ((made, torch.where(seen, z, 0.0)), (every.recommender.eval(), z)):
            model = each if each is every.recommender else each.recommender
            scores = model.score(model(batch).queries, index(model, rows))
            assert torch.allclose(scores - base, 0.5 * values.expand_as(base), atol=1e-4)
    assert (z[~seen] < z[seen].min()).all()


def test_a_prior_does_not_hide_that_all_vectors_are_the_same(shop_words):
    model = assembled(shop_words, *TWO, PRIOR).recommender
    torch.nn.init.constant_(model.prior.weight, 2.0)
    items = torch.cat([torch.ones(30, 32), model.prior(torch.arange(30))[:, None]], dim=-1)
    model.index = lambda plan: items[plan.items]
    with pytest.warns(UserWarning, match="all items nearly the same vector"):
        model.evaluator.start(model)


@pytest.mark.parametrize("objective", ["in_batch", "full_softmax", "bce"])
def test_the_prior_learns_what_is_popular(shop_words, objective):
    made = assembled(shop_words, *BOTH, PRIOR, DROPOUT, SHRINKAGE, f"objective={objective}")
    model, batch = made.recommender.train(), batch_of(made)
    drawn = None
    if objective == "bce":
        examples = made.examples
        at = np.sort(examples.sample_epoch("all", 1, 0, 0))[:6]
        rows = examples.make_train_rows("all", at)
        drawn = made.datamodule.sampler.sample(rows, 4, 0, 0)
        batch = examples.make_batch(rows, made.datamodule.sizes, drawn)
    optimizer = torch.optim.SGD(model.get_trained_parameters().values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = model.parts.objective(model(batch), batch, model.get_objective_context())
        (loss.total / loss.count).backward()
        optimizer.step()
    # What has no gradient would stop DDP.
    assert all(p.grad is not None for p in model.get_trained_parameters().values())
    assert model.prior.weight.item() != 0


def test_a_hybrid_is_saved_and_recommends_as_it_was_trained(shop_words, tmp_path, capsys):
    more = [DROPOUT, SHRINKAGE, PRIOR, "trainer.max_steps=6", "optimizer.head_lr=0.1"]
    assert main([*shop_words, *BOTH, *more, "checkpoint.pick=last"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    first = json.loads((folder / "result.json").read_text())["test"]["ndcg@10"]
    capsys.readouterr()
    assert recommend([f"run={folder}", "user=u3", "k=3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    made = assembled(shop_words, *BOTH, *more)
    model = made.recommender.eval()
    model.load_trained(folder / BEST)
    assert model.prior.weight.item() != 0
    assert model.ids.vectors.any()
    assert model.evaluate(made.datamodule.test_dataloader())["ndcg@10"] == pytest.approx(first)
    # Shown are the scores of these weights, without dropout.
    row = made.tables.users["user"].to_list().index("u3")
    batch = made.examples.make_serving_batch(made.examples.list_history(row), row)
    with torch.no_grad():
        scores = model.score(model.queries(batch, model.index(batch.plan)), model.index_catalog())
    shown = TrainedRun(folder).recommend(users=["u3"], k=3)
    places = [made.tables.items["item"].to_list().index(item) for item in shown["item"]]
    assert torch.allclose(scores[0, places], shown["score"].to_torch().float(), atol=1e-4)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([*TWO, DROPOUT], "item=text has no learned vectors; set architecture.item=text\\+id"),
        ([*TWO, SHRINKAGE, "architecture.item=id"], "item=id has nothing else"),
        ([*BOTH, "architecture.id_dropout=1"], "id_dropout.*below 1"),
        ([*BOTH, "architecture.id_shrinkage=-1"], "id_shrinkage.*0"),
        ([*TWO, "architecture.popularity_cold=true"], "set architecture.popularity=true"),
    ],
)
def test_what_cannot_be_is_refused(shop_words, more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, *more)
