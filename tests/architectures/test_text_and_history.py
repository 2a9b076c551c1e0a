"""A user of a text and of a history as one vector: the sum of both, which a part may lack."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from recsys.errors import ConfigError
from tests.architectures.test_baselines import assembled

BOTH = ["architecture=two_tower", "architecture.user=text+history"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def told(shop_words, tmp_path):
    """The shop, whose users have a text."""
    texts = [f"u{n},wants a {'lamp' if n % 2 else 'chair'}\n" for n in range(40)]
    (tmp_path / "users.csv").write_text("who,about\n" + "".join(texts))
    own = [f"data.source.users={tmp_path / 'users.csv'}", "data.source.user_text='{about}'"]
    return [*shop_words, *own]


def make_batch(made, at):
    return made.examples.make_batch(made.examples.make_case_rows(at), made.datamodule.sizes)


def compute_queries(words, user, *more):
    made = assembled([*words, *more], "architecture=two_tower", f"architecture.user={user}")
    model = made.recommender.eval()
    batch = make_batch(made, made.split.list_cases(2))
    with torch.no_grad():
        return model.queries(batch, model.index(batch.plan)), model, batch


@pytest.mark.parametrize("score", ["cosine", "dot"])
@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_it_starts_as_the_sum_of_what_each_alone_is(told, score, towers):
    own = ["tuning=frozen", f"architecture.score={score}", f"architecture.towers={towers}"]
    texts, histories = (compute_queries(told, user, *own)[0] for user in ("text", "history"))
    both, model, _ = compute_queries(told, "text+history", *own)
    want = texts + histories
    assert torch.allclose(both, normalize(want, dim=1) if score == "cosine" else want, atol=1e-5)
    assert not torch.allclose(both, texts, atol=1e-2)
    assert not model.needs_history
    assert model.reads_plan


def test_without_a_history_it_is_the_text(told):
    made = assembled([*told, "tuning=frozen"], *BOTH)
    alone = assembled([*told, "tuning=frozen"], "architecture=two_tower", "architecture.user=text")
    nothing = made.examples.make_serving_batch(np.empty(0, dtype=np.int64), user=3)
    with torch.no_grad():
        own, other = (
            each.recommender.eval().queries(nothing, each.recommender.index(nothing.plan))
            for each in (made, alone)
        )
    assert torch.allclose(own, other, atol=1e-6)


@pytest.mark.parametrize("score", ["cosine", "dot"])
def test_parts_of_a_score_are_those_of_the_history_and_of_the_text(told, score):
    own = ["tuning=frozen", f"architecture.score={score}", "architecture.temperature=1"]
    made = assembled([*told, *own], *BOTH)
    model, rows = made.recommender.eval(), torch.arange(30)
    with torch.no_grad():
        model.user_head.weight.normal_(std=0.2)
        model.join.share.fill_(0.7)
        catalog = model.index_catalog()
        batch = made.examples.make_serving_batch(np.array([3, 11, 20]), user=5)
        scores = model.score(model.queries(batch, catalog[batch.plan.items]), catalog)[0]
        split = model.split_scores(batch, rows, catalog)
        history = model.make_history_score(batch, rows, catalog)
        again = history.score(history.vectors[None])[0]
    assert torch.allclose(split.history.sum(1) + split.rest["text"], scores, atol=1e-5)
    assert split.rest["text"].abs().max() > 1e-3
    assert torch.allclose(again, scores, atol=1e-5)


def test_the_share_of_the_history_trains(told):
    made = assembled([*told, "tuning=lora", "architecture.temperature=0.2"], *BOTH)
    model = made.recommender.train()
    batch = next(iter(made.datamodule.train_dataloader()))
    model.parts.objective(model(batch), batch, model.parts.around(model.score)).total.backward()
    assert model.join.share.grad.abs() > 0
    assert "join.share" in model.get_saved_parameters()


def test_a_table_of_items_does_not_go_with_texts_of_users(told):
    with pytest.raises(ConfigError, match=r"set trainer\.encoder_updates=every_step"):
        assembled(told, *BOTH, "tuning=lora", "trainer.encoder_updates=half_epoch")
