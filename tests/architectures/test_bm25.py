"""BM25: its formula by hand, what training queries add to items, and what comes after the fit."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from recsys.data.columns.words import split_words
from recsys.data.training_events import TrainingQueries
from recsys.fit.__main__ import main
from recsys.layers.queries.word_counts import Vocabulary
from recsys.models.queries.bm25 import compute_idf, weigh_words
from recsys.testing import ArchitectureContract
from recsys.trained.run import load
from tests.architectures.test_baselines import assembled

BM25 = ["architecture=bm25"]


class TestPlain(ArchitectureContract):
    choice = "bm25"
    settings = ("extend=false", "k1=2", "b=0.3")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def score_naively(query, docs, k1, b):
    """Robertson's sum over the words of a query, each as often as it stands there; Lucene's idf."""
    docs = [Counter(split_words(doc.lower())) for doc in docs]
    lengths = np.array([sum(doc.values()) for doc in docs])
    scores = np.zeros(len(docs))
    for word in split_words(query.lower()):
        has = sum(word in doc for doc in docs)
        idf = np.log(1 + (len(docs) - has + 0.5) / (has + 0.5))
        counts = np.array([doc[word] for doc in docs])
        doubt = k1 * (1 - b + b * lengths / lengths.mean())
        scores += idf * counts * (k1 + 1) / (counts + doubt)
    return scores


def make_batch(made, at):
    return made.examples.make_batch(made.examples.make_case_rows(at), made.datamodule.sizes)


@pytest.mark.parametrize("extend", [True, False])
def test_a_score_is_robertsons_over_texts_that_queries_extend(shop_words, extend):
    own = ["architecture.k1=1.7", "architecture.b=0.4", f"architecture.extend={extend}"]
    made = assembled(shop_words, *BM25, *own)
    model, queries = made.recommender, TrainingQueries(made.examples)
    docs, written = list(model.parts.texts), model.parts.written
    said = written.compose_plain_texts(make_batch(made, made.examples.list_target_events("all")))
    assert len(said) == len(queries) > 30
    for text, item in zip(said if extend else (), queries.items, strict=False):
        docs[item] += " " + text
    batch = make_batch(made, made.split.list_cases(2))
    got = model.score(model.queries(batch, batch.plan.items), torch.arange(30))
    for text, row in zip(written.compose_plain_texts(batch), got.numpy(), strict=True):
        np.testing.assert_allclose(row, score_naively(text, docs, 1.7, 0.4), rtol=1e-4, atol=1e-5)
    few = torch.tensor([7, 0])
    assert torch.equal(model.score(model.queries(batch, batch.plan.items), few), got[:, few])


def test_no_word_weighs_less_than_nothing_and_a_text_without_words_scores_nothing():
    texts = ["a a b", "a", "a c", ""]
    words = Vocabulary.collect(texts)
    counts = words.count(texts)
    weights = weigh_words(counts, compute_idf(counts), 1.5, 1.2, 0.75)
    assert (weights.data > 0).all()  # also of what most texts have
    assert not weights[3].nnz
    once = weigh_words(counts, compute_idf(counts), 1.5, 0.0, 0.75)
    assert np.allclose(once.toarray()[0], compute_idf(counts) * (counts.toarray()[0] > 0))


def test_what_is_asked_without_a_known_word_is_answered_with_what_is_popular(shop_words):
    made = assembled(shop_words, *BM25)
    model = made.recommender
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    popular = torch.from_numpy(made.examples.count_train_items()).float()
    assert torch.equal(model.score(model.queries(batch, None), torch.arange(30))[0], popular)
    asked = model.make_text_query(batch, "RED lamps; red", None)
    scores = model.score(asked, torch.arange(30))[0]
    assert (scores[:5] > 0).all()
    assert scores[:5].min() > scores[5:].max()


def test_what_is_open_is_chosen_on_validation(shop_words, tmp_path):
    grid = ["architecture.k1=[1,3]", "architecture.b=[0,0.75]"]
    assert main([*shop_words, *BM25, *grid]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    fit = json.loads((folder / "fit.json").read_text())
    best = max(fit["tried"], key=lambda row: row["ndcg@10"])
    assert len(fit["tried"]) == 4
    assert fit["chosen"] == fit["state"] == {name: best[name] for name in ("k1", "b")}
    titles = load(folder).recommend(texts=["red lamp"], k=5)["title"]
    assert titles.str.starts_with("red").all()
