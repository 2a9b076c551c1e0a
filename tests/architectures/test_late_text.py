"""Late interaction of a user's text: MaxSim by hand, and what trains."""

import numpy as np
import pytest
import torch

from recsys.types import Ragged
from tests.architectures.test_baselines import assembled

LATE = ["architecture=late_interaction", "architecture.user=text", "objective=bce"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def told(shop_words, tmp_path):
    """The shop, whose users have a text, but for the first three."""
    texts = [f"u{n},{'' if n < 3 else 'wants a red lamp'}\n" for n in range(40)]
    (tmp_path / "users.csv").write_text("who,about\n" + "".join(texts))
    own = [f"data.source.users={tmp_path / 'users.csv'}", "data.source.user_text='{about}'"]
    return [*shop_words, *own]


@pytest.mark.parametrize("special", ["true", "false"])
def test_a_score_is_what_the_tokens_of_the_text_find(told, special):
    own = ["tuning=frozen", f"architecture.special_tokens={special}", "architecture.temperature=1"]
    made = assembled([*told, *own], *LATE)
    model, cases = made.recommender.eval(), made.split.list_cases(2)[:9]
    batch = made.examples.make_batch(made.examples.make_case_rows(cases), made.datamodule.sizes)
    with torch.no_grad():
        model.user_head.weight.normal_(std=0.1)
        got = model.score(model.queries(batch, batch.plan.items), torch.arange(30)).numpy()
        texts = model.encode_text_tokens(model.user_texts.compose_tokens(batch)).split()
        items = model.encode_item_tokens(torch.arange(30)).split()
        best = [[(q @ i.T).amax(1).mean() for i in items] for q in texts]
        np.testing.assert_allclose(got, np.array(best), atol=1e-5)
        lists = model.score_candidates(batch, model.index(batch.plan)).numpy()
    target = batch.plan.items[batch.candidates[:, 0]].numpy()
    np.testing.assert_allclose(lists[:, 0], got[np.arange(9), target], atol=1e-5)
    assert not model.needs_history


def test_a_text_that_asks_stands_in_place_of_the_users(told):
    made = assembled([*told, "tuning=frozen"], *LATE)
    model, tokenize = made.recommender.eval(), made.tokenize
    nobody = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    known = made.examples.make_serving_batch(np.empty(0, dtype=np.int64), user=7)
    ids = torch.tensor(tokenize(["wants a red lamp"])[0])
    with torch.no_grad():
        asked = model.make_text_query(nobody, "wants a red lamp", Ragged(ids, (len(ids),)))
        rows = torch.arange(30)
        own = model.score(model.queries(known, torch.empty(0)), rows)
        assert torch.allclose(model.score(asked, rows), own, atol=1e-6)


def test_what_reads_no_history_trains_no_decay_of_it(told):
    made = assembled([*told, "tuning=lora"], *LATE)
    names = made.recommender.get_saved_parameters()
    assert "rate" not in names
    assert "user_head.weight" in names
