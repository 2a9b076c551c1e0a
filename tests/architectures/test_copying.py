"""Copying: the order of a list by hand, and what speaks for an item. Co-mentions are counts."""

import numpy as np
import pytest
import torch

from recsys.fit.__main__ import main
from recsys.trained.run import load
from tests.architectures.test_baselines import assembled


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def test_the_latest_comes_first_and_then_what_is_popular(shop_words):
    made = assembled(shop_words, "architecture=copying")
    model, popular = made.recommender, made.examples.count_train_items()
    rare = np.argsort(popular, kind="stable")[:3]
    history = np.array([rare[0], rare[1], rare[2], rare[0]])  # the first again: it is the latest
    batch = made.examples.make_serving_batch(history)
    scores = model.score(model.queries(batch, batch.plan.items), torch.arange(30))[0].numpy()
    assert np.argsort(-scores, kind="stable")[:3].tolist() == [rare[0], rare[2], rare[1]]
    np.testing.assert_allclose(scores[rare[[0, 2, 1]]], [2, 1.5, 1 + 1 / 3])
    rest = np.setdiff1d(np.arange(30), rare)
    np.testing.assert_allclose(scores[rest], popular[rest] / (popular.max() + 1), rtol=1e-6)
    split = model.split_scores(batch, torch.arange(30))
    parts = split.history.sum(1) + split.rest["popularity"]
    np.testing.assert_allclose(parts.numpy(), scores, rtol=1e-6)


def test_it_finds_what_repeats_and_says_why(shop_words, tmp_path):
    words = [*shop_words, "experiment=copying", "evaluation.mask_history=false"]
    assert main(words) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    lists = load(folder).recommend(
        histories=[["003", "007"]], k=2, exclude_seen=False, because=True
    )
    assert lists["item"].to_list() == ["007", "003"]
    assert lists["because"].str.contains("because you had").all()


def test_co_mentions_are_counts(shop_words):
    made = assembled(shop_words, "experiment=co_mention", "architecture.recency=0")
    events = made.recommender.events
    had = events.make_matrix(30, binary=True).toarray()
    both = had.T @ had
    np.fill_diagonal(both, 0)
    rows = torch.arange(30)
    got = made.recommender.score(rows[:, None], rows).numpy() * 1e6
    np.testing.assert_allclose(got, both, atol=1e-2)
