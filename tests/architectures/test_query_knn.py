"""Neighbours among training queries: a score by hand, who is left out, and what a run says."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.data.columns.words import split_words
from recsys.data.training_events import TrainingQueries
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.layers.queries.neighbours import VectorIndex, WordIndex, find_nearest
from recsys.layers.queries.word_counts import Vocabulary, compute_idf, compute_tfidf
from recsys.models.queries.knn import Model
from recsys.testing import ArchitectureContract
from recsys.trained.run import load
from tests.architectures.test_baselines import assembled

FIXED = ("neighbours=7", "temperature=0.2", "popularity=0.1")
KNN = ["architecture=query_knn", *(f"architecture.{word}" for word in FIXED)]


class TestVectors(ArchitectureContract):
    choice = "query_knn"
    settings = ("vectors=encoder", *FIXED)


class TestHistoryVectors(ArchitectureContract):
    choice = "query_knn"
    settings = ("vectors=encoder", "user=history", *FIXED)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def make_batch(made, at):
    return made.examples.make_batch(made.examples.make_case_rows(at), made.datamodule.sizes)


def score_naively(asked, own, users, queries, made):
    """All in numpy: similarities (Q, N), the best 7, a softmax over them, and what is popular.

    Also whether these are told from the eighth by more than rounding.
    """
    counts = made.examples.count_train_items()
    popular, out, sure = counts / counts.sum(), [], []
    for similar, user in zip(asked @ own.T, users, strict=True):
        known = [n for n in np.argsort(-similar, kind="stable") if queries.users[n] != user]
        near = [n for n in known[:7] if similar[n] > 1e-6]
        sure.append(abs(similar[known[6]] - similar[known[7]]) > 1e-5 or len(near) < 7)
        row = popular.copy()
        if near:
            weights = np.exp(similar[near] / 0.2)
            row *= 0.1
            for n, weight in zip(near, weights / weights.sum(), strict=True):
                row[queries.items[queries.offsets[n] : queries.offsets[n + 1]]] += 0.9 * weight
        out.append(row)
    return np.array(out), np.array(sure)


@pytest.mark.parametrize("way", ["words", "encoder", "history of encoder"])
def test_a_score_is_what_the_nearest_queries_ended_in(shop_words, way):
    more = [] if way == "words" else ["architecture.vectors=encoder"]
    more += ["architecture.user=history"] if "history" in way else []
    made = assembled(shop_words, *KNN, *more)
    model, queries = made.recommender.eval(), TrainingQueries(made.examples)
    cases = made.split.list_cases(2)
    batch, own = make_batch(made, cases), make_batch(made, made.examples.list_target_events("all"))
    if way == "words":
        texts = model.parts.written.compose_plain_texts(own)
        plain = TfidfVectorizer(sublinear_tf=True, tokenizer=split_words, token_pattern=None)
        index = plain.fit_transform(texts).toarray()
        asked = plain.transform(model.parts.written.compose_plain_texts(batch)).toarray()
    else:
        towers = assembled(
            shop_words,
            "architecture=two_tower",
            "architecture.heads=false",
            "tuning=frozen",
            f"architecture.user={'history' if 'history' in way else 'text'}",
        ).recommender.eval()
        with torch.no_grad():
            index, asked = (
                towers.queries(each, towers.index(each.plan)).numpy() for each in (own, batch)
            )
    users = made.split.compute_user_rows()[cases]
    got = model.score(model.queries(batch, batch.plan.items), torch.arange(30)).numpy()
    want, sure = score_naively(asked, index, users, queries, made)
    assert sure.sum() > 5
    np.testing.assert_allclose(got[sure], want[sure], atol=2e-5)
    some = torch.tensor([5, 29, 0])
    few = model.score(model.queries(batch, batch.plan.items), some).numpy()
    assert (few == got[:, some]).all()


def test_a_training_query_never_finds_itself_nor_its_user(shop_words):
    """Hard negatives and ensembles ask about training queries: the answer must not be in them."""
    made = assembled(shop_words, *KNN)
    queries, at = TrainingQueries(made.examples), made.examples.list_target_events("all")
    near = made.recommender.queries(make_batch(made, at), torch.empty(0))[:, 0].long().numpy()
    users = made.split.compute_user_rows()[at]
    own = queries.users[near]
    assert (near >= 0).any(1).all()
    assert not ((own == users[:, None]) & (near >= 0)).any()


def test_only_training_queries_are_indexed(shop_words):
    """Of a basket, one; and of nobody whom data.train_users leaves out."""
    made = assembled(shop_words, *KNN)
    queries = TrainingQueries(made.examples)
    role = made.split.role[made.examples.list_target_events("all")]
    assert (role == 0).all()
    assert len(queries) == len(role)
    held = set(zip(*(made.split.compute_user_rows(), made.split.item), strict=True))
    assert set(zip(queries.users, queries.items, strict=True)) <= held
    few = TrainingQueries(assembled(shop_words, *KNN, "data.train_users=5").examples)
    assert len(set(few.users.tolist())) == 5


def test_targets_of_one_moment_are_one_query(shop, shop_words, tmp_path):
    header, *rows = (shop / "events.csv").read_text().splitlines()
    lines = [f"{row},{n // 5}-{(n % 5 + 1) // 2}" for n, row in enumerate(rows)]  # one, two, two
    (tmp_path / "events.csv").write_text("\n".join([f"{header},basket", *lines]) + "\n")
    words = [word for word in shop_words if not word.startswith("data.source.interactions")]
    words += [f"data.source.interactions={tmp_path / 'events.csv'}"]
    made = assembled(words, *KNN, "data.split=leave_one_out")
    queries = TrainingQueries(made.examples)
    sizes = np.diff(queries.offsets)
    assert sizes.sum() == len(made.examples.list_target_events("all")) > len(queries)
    assert sizes.max() == 2
    starts = made.split.compute_history_starts()[made.examples.list_target_events("all")]
    assert len(queries) == len(np.unique(starts))


def test_the_nearest_are_those_of_all_at_once_whatever_the_blocks():
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.integers(-2, 3, (60, 4)).astype(np.float32))  # many are equal
    asked = torch.from_numpy(rng.integers(-2, 3, (9, 4)).astype(np.float32))
    owners, users = torch.from_numpy(rng.integers(0, 6, 60)), torch.arange(9) - 1
    unit = torch.nn.functional.normalize
    similar = (unit(asked, dim=1) @ unit(vectors, dim=1).T).numpy()
    for block in (1, 40, 1 << 20):
        rows, values = find_nearest(VectorIndex(vectors), asked, 11, owners, users, block)
        for query, row, value in zip(range(9), rows.tolist(), values.tolist(), strict=True):
            able = [n for n in range(60) if not query or owners[n] != users[query]]
            best = sorted(able, key=lambda n: (-round(float(similar[query, n]), 5), n))[:11]
            best = [n for n in best if similar[query, n] > 1e-6]
            got = [n for n, v in zip(row, value, strict=True) if n >= 0 and v > 1e-6]
            np.testing.assert_allclose(similar[query, got], similar[query, best], atol=1e-5)


def test_words_weigh_as_in_scikit_learn_and_are_not_kept():
    texts = ["red lamp red", "blue lamp; a 3", "", "昨日の本 red"]
    words = Vocabulary.collect(texts)
    counts = words.count(texts)
    got = compute_tfidf(counts, compute_idf(counts)).toarray()
    plain = TfidfVectorizer(sublinear_tf=True, tokenizer=split_words, token_pattern=None)
    want = plain.fit_transform(texts).toarray()
    assert got.shape == want.shape
    assert len(words) == len(plain.vocabulary_)
    np.testing.assert_allclose(got @ got.T, want @ want.T, atol=1e-6)
    np.testing.assert_allclose(sorted(got[1]), sorted(want[1]), atol=1e-6)
    again = Vocabulary(words.digests)
    assert (again.count(["lamp unknown LAMP"]) != words.count(["lamp lamp"])).nnz == 0
    index = WordIndex(compute_tfidf(counts, compute_idf(counts)))
    asked = torch.from_numpy(compute_tfidf(words.count(["nothing"]), compute_idf(counts)).toarray())
    rows, values = find_nearest(index, asked, 3, torch.zeros(4), torch.tensor([-1]))
    assert (rows == -1).all()
    assert not values.any()


def test_a_query_without_words_is_answered_with_what_is_popular(shop_words):
    made = assembled(shop_words, *KNN)
    batch = made.examples.make_serving_batch(np.empty(0, dtype=np.int64))
    model = made.recommender
    scores = model.score(model.queries(batch, batch.plan.items), torch.arange(30))[0]
    counts = torch.from_numpy(made.examples.count_train_items()).float()
    assert torch.allclose(scores, counts / counts.sum())


def test_what_is_open_is_chosen_on_validation_and_taken(shop_words, tmp_path):
    grid = ["architecture.neighbours=[2,9]", "architecture.temperature=[0.05,1]"]
    assert main([*shop_words, "experiment=query_knn", *grid]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    fit = json.loads((folder / "fit.json").read_text())
    assert len(fit["tried"]) == 4
    best = max(fit["tried"], key=lambda row: row["ndcg@10"])
    assert {name: best[name] for name in fit["chosen"]} == fit["chosen"]


def test_vectors_of_a_run_are_those_of_its_queries(shop_words, tmp_path):
    towers = ["tuning=frozen", "architecture.user=text", "trainer.max_steps=2"]
    assert main([*shop_words, *towers, "optimizer.lr=0.05", "checkpoint.pick=last"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    own = [*KNN, f"architecture.vectors={folder}"]
    made = assembled(shop_words, *own)
    assert made.recommender.parts.query_vectors.shape == (len(TrainingQueries(made.examples)), 32)
    plain = assembled(shop_words, *KNN, "architecture.vectors=encoder").recommender.parts
    assert not torch.allclose(plain.query_vectors, made.recommender.parts.query_vectors, atol=1e-3)
    with pytest.raises(ConfigError, match=r"set architecture\.user=text"):
        assembled(shop_words, *own, "architecture.user=history")


def test_no_training_query_is_a_clear_error(shop_words):
    own = assembled(shop_words, *KNN).recommender
    nothing = dataclasses.replace(own.parts, training_queries=None)
    with pytest.raises(ConfigError, match="query_knn looks among the queries of training"):
        Model(nothing, own.config)


@pytest.mark.parametrize("asked", ["history", "text"])
def test_a_list_says_how_many_like_queries_led_to_an_item_and_no_text_of_theirs(
    shop_words, tmp_path, asked
):
    users = "".join(f"u{n},secret{n} likes red\n" for n in range(40))
    (tmp_path / "users.csv").write_text("who,about\n" + users)
    own = [f"data.source.users={tmp_path / 'users.csv'}", "data.source.user_text='{about}'"]
    assert main([*shop_words, *own, *KNN]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = load(folder)
    query = {"histories": [["003"]]} if asked == "history" else {"texts": ["red lamp"]}
    lists = run.recommend(**query, k=4, because=True)
    made = assembled([*shop_words, *own], *KNN)
    queries, texts = TrainingQueries(made.examples), list(made.recommender.parts.texts)
    for title, line in lists.select("title", "because").iter_rows():
        assert "secret" not in line
        if line == "because it is popular":
            continue
        count, among = (int(word) for word in line.split() if word.isdigit())
        assert 1 <= count <= among == 7
        led = queries.users[queries.items == texts.index(title)]
        for named in line.split('"')[1::2]:
            took = queries.users[queries.items == texts.index(named)]
            assert len(set(took) & set(led)) >= 2
    assert lists["because"].str.contains("similar queries led to it").any()
