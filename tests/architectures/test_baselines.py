"""Baselines that do not train, against naive dense computations, and what they may know."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.splits.split import TRAIN, Split
from recsys.data.training_events import DAY, Interactions
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.layers.baselines import make_history_matrix
from recsys.layers.item_item import compute_cosine_neighbours
from recsys.recommend.__main__ import main as recommend

BASELINES = {
    "item_knn": ["architecture=item_knn"],
    "fading": ["architecture=item_knn", "architecture.recency=0.5", "architecture.binary=false"],
    "windowed": ["architecture=item_knn", "architecture.window=2", "architecture.gap=inverse"],
    "ease": ["architecture=ease", "architecture.l2=5"],
    "texts": [
        "architecture=item_knn",
        "architecture.vectors=encoder",
        "architecture.text_weight=0.5",
    ],
    "recent": ["architecture=popularity", "architecture.kind=recent", "architecture.days=0.01"],
    "decay": ["architecture=popularity", "architecture.kind=decay", "architecture.days=0.01"],
    "last": ["architecture=tfidf", "architecture.history=last"],
    "recency": ["architecture=tfidf", "architecture.history=recency"],
}
ITEMS = 11


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


def assembled(shop_words, *words):
    return build.assemble(compose([*shop_words, *words]))


def counts(seed, users=12):
    """(users, I) small counts with many equal columns; the last item has none."""
    matrix = np.random.default_rng(seed).poisson(0.4, (users, ITEMS)).astype(np.float32)
    matrix[:, 3], matrix[:, -1] = matrix[:, 2], 0
    return matrix


def naive_neighbours(matrix, k, shrink):
    """(I, I) float64: row j keeps item j's k most similar, equal ones by row number."""
    out = np.zeros((ITEMS, ITEMS))
    for j in range(ITEMS):
        near = []
        for i in range(ITEMS):
            dot = float(matrix[:, i].astype(float) @ matrix[:, j].astype(float))
            norms = np.sqrt((matrix[:, i] ** 2).sum(dtype=float) * (matrix[:, j] ** 2).sum())
            if i != j and dot:
                near.append((-dot / (norms + shrink), i))
        for value, i in sorted(near)[:k]:
            out[j, i] = -value
    return out


@pytest.mark.parametrize(("k", "shrink"), [(1, 0.0), (3, 2.5), (99, 10.0)])
def test_neighbours_equal_a_naive_loop_whatever_the_block(k, shrink):
    for seed in range(3):
        matrix = counts(seed)
        want = naive_neighbours(matrix, k, shrink)
        for block in (1, 17, 1 << 20):
            got = compute_cosine_neighbours(csr_matrix(matrix), k, shrink, block).toarray()
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_histories_fade_and_repeat():
    rows = torch.tensor([[4, 2, 4], [7, -1, -1], [-1, -1, -1]])
    summed = make_history_matrix(rows, 9, 0.5, binary=False).toarray()
    latest = make_history_matrix(rows, 9, 0.5, binary=True).toarray()
    step = np.exp(-0.5)
    assert summed[0, [2, 4]] == pytest.approx([step, 1 + step**2])
    assert latest[0, [2, 4]] == pytest.approx([step, 1])
    assert summed[1, 7] == latest[1, 7] == 1
    assert (summed != 0).sum() == (latest != 0).sum() == 3


@pytest.mark.parametrize("name", ["item_knn", "fading", "ease"])
def test_a_case_is_scored_from_its_history(shop_words, name):
    """As a dense matrix of the training events says, with items that nobody had at 0."""
    made = assembled(shop_words, *BASELINES[name], "data.max_history=3")
    model, split = made.recommender, made.split
    events = np.flatnonzero((split.role == TRAIN) & (split.label > 0))
    matrix = np.zeros((40, 30), dtype=np.float32)
    np.add.at(matrix, (split.compute_user_rows()[events], split.item[events]), 1)
    matrix[:, 29] = 0  # as below
    parts = model.parts
    keep = parts.interactions.items != 29
    fewer = Interactions(*(x[keep] for x in dataclasses.astuple(parts.interactions)))
    config = compose([*shop_words, *BASELINES[name]]).architecture
    model = type(model)(dataclasses.replace(parts, interactions=fewer), config)
    if name == "ease":
        inverse = np.linalg.inv((matrix.T @ matrix + 5 * np.eye(30)).astype(float))
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
    else:
        norms = np.sqrt((matrix**2).sum(0))
        shrunk = np.outer(norms, norms) + config.shrink
        weights = (matrix.T @ matrix) / np.where(shrunk > 0, shrunk, 1)
        np.fill_diagonal(weights, 0)
    rate = 0.0 if name == "ease" else config.recency
    cases = split.list_cases(2)[:20]
    batch = made.examples.make_batch(made.examples.make_case_rows(cases), made.datamodule.sizes)
    got = model.score(model.queries(batch, model.index(batch.plan)), torch.arange(30))
    for case, row in zip(cases, got.numpy(), strict=True):
        had = split.item[split.slice_history(case)][-3:]
        fading = np.exp(-rate * np.arange(len(had))[::-1])
        np.testing.assert_allclose(row, fading @ weights[had], atol=1e-5)
    assert not got[:, 29].any()
    some = torch.tensor([5, 29, 0])
    assert torch.equal(model.score(model.queries(batch, batch.plan.items), some), got[:, some])


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_held_out_changes_nothing(shop_words, name):
    """Other items, and later times, in validation and test leave every score of a case alone."""
    made = assembled(shop_words, *BASELINES[name])
    split = made.split
    held = split.role != TRAIN
    assert held.sum() == 80
    other = dataclasses.replace(
        split,
        item=np.where(held, 29 - split.item, split.item).astype(np.int32),
        time=np.where(held, split.time + 1000 * DAY, split.time),
    )
    own, poisoned = (Interactions.from_split(s, np.arange(40)) for s in (split, other))
    before = np.flatnonzero(~held)
    want = set(
        zip(split.compute_user_rows()[before].tolist(), split.item[before].tolist(), strict=True)
    )
    assert set(zip(own.users.tolist(), own.items.tolist(), strict=True)) == want
    config = compose([*shop_words, *BASELINES[name]]).architecture
    parts = made.recommender.parts
    batch = made.examples.make_serving_batch(np.array([0, 7, 3, 7]))
    scores = []
    for events in (own, poisoned):
        model = type(made.recommender)(dataclasses.replace(parts, interactions=events), config)
        query = model.queries(batch, model.index(batch.plan))
        scores.append(model.score(query, model.index_catalog()))
    assert torch.equal(*scores)
    assert scores[0].any()


def test_a_window_counts_the_pairs_of_users_that_train(shop_words):
    """As all events of them in their order say; scores are sums over the history."""
    words = [*BASELINES["windowed"], "architecture.backward=0.5", "architecture.shrink=3"]
    made = assembled(shop_words, *words, "data.train_users=20", "data.max_history=3")
    model, split, train = made.recommender, made.split, made.examples.get_train_pairs()[0]
    events = np.flatnonzero((split.role == TRAIN) & (split.label > 0))
    similar, had = np.zeros((30, 30)), np.zeros((40, 30))
    for user in set(train.tolist()):
        items = split.item[events[split.compute_user_rows()[events] == user]]
        had[user, items] = 1
        assert len(set(items)) == len(items)
        for gap in (1, 2):
            np.add.at(similar, (items[:-gap], items[gap:]), 1 / gap)
            np.add.at(similar, (items[gap:], items[:-gap]), 0.5 / gap)
    similar /= np.sqrt(np.outer(had.sum(0), had.sum(0))) + 3
    cases = split.list_cases(2)[:20]
    batch = made.examples.make_batch(made.examples.make_case_rows(cases), made.datamodule.sizes)
    got = model.score(model.queries(batch, model.index(batch.plan)), torch.arange(30)).numpy()
    for case, row in zip(cases, got, strict=True):
        history = split.item[split.slice_history(case)][-3:]
        fading = np.exp(-0.3 * np.arange(len(history))[::-1])
        np.testing.assert_allclose(row, fading @ similar[history], atol=1e-6)
    assert got.any()


def test_only_users_that_train_teach_item_knn(shop_words):
    made = assembled(shop_words, "architecture=item_knn", "data.train_users=7")
    events = made.recommender.parts.interactions
    users, items = made.examples.get_train_pairs()
    assert len(set(users.tolist())) == 7
    chosen = events.users[events.chosen].tolist(), events.items[events.chosen].tolist()
    assert sorted(zip(*chosen, strict=True)) == sorted(
        zip(users.tolist(), items.tolist(), strict=True)
    )
    assert len(events.users) == int(made.recommender.parts.counts.sum()) > len(users)
    matrix = events.make_matrix(30, binary=False)
    assert matrix.shape == (7, 30)
    assert matrix.sum() == len(users)


def test_what_a_user_did_not_like_teaches_nothing(shop_words):
    liked = ["data.source.rating=stars", "data.positive_from=3"]
    made = assembled(shop_words, "architecture=item_knn", *liked)
    events, split = made.recommender.parts.interactions, made.split
    held = (split.role == TRAIN) & (split.label > 0)
    assert 0 < held.sum() < (split.role == TRAIN).sum()
    assert events.items.tolist() == split.item[held].tolist()
    counts = made.recommender.parts.counts
    assert torch.equal(torch.bincount(events.items, minlength=30), counts)


def test_popularity_by_age(shop_words):
    made = assembled(shop_words, "architecture=popularity")
    events, parts = made.recommender.parts.interactions, made.recommender.parts
    assert torch.equal(made.recommender.weights, parts.counts.float())
    config = type(compose([*shop_words, "architecture=popularity"]).architecture)
    # The shop's users come 100 seconds one after the other.
    day = 1000 / 86400
    last = int(events.times.max())
    recent = made.recommender.__class__(parts, config("recent", day)).weights
    decayed = made.recommender.__class__(parts, config("decay", day)).weights
    for item in range(30):
        ages = [
            (last - int(t)) / DAY / day
            for t, i in zip(events.times, events.items, strict=True)
            if i == item
        ]
        assert recent[item] == sum(age < 1 for age in ages)
        assert float(decayed[item]) == pytest.approx(sum(0.5**age for age in ages), rel=1e-5)
    assert 0 < recent.sum() < parts.counts.sum()


def test_tfidf_by_history(shop_words):
    made = assembled(shop_words, "architecture=tfidf")
    parts, batch = made.recommender.parts, made.examples.make_serving_batch(np.array([0, 7, 3]))
    config, model = type(made.recommender), {}
    own = type(compose([*shop_words, "architecture=tfidf"]).architecture)
    for kind, rate in itertools.product(["mean", "last", "recency"], [0.0, 0.3, 50.0]):
        asked = config(parts, own(history=kind, recency=rate))
        model[kind, rate] = asked.queries(batch, asked.index(batch.plan)).numpy()
    vectors = made.recommender.vectors.toarray()
    step = np.exp(-0.3)
    fading = (step**2 * vectors[0] + step * vectors[7] + vectors[3]) / (1 + step + step**2)
    np.testing.assert_allclose(model["mean", 0.3][0], vectors[[0, 7, 3]].mean(0), atol=1e-6)
    np.testing.assert_allclose(model["last", 0.3][0], vectors[3], atol=1e-6)
    np.testing.assert_allclose(model["recency", 0.3][0], fading, atol=1e-6)
    np.testing.assert_allclose(model["recency", 0.0], model["mean", 0.3], atol=1e-6)
    np.testing.assert_allclose(model["recency", 50.0], model["last", 0.3], atol=1e-6)


@pytest.mark.parametrize("name", ["item_knn", "ease", "recent", "last"])
def test_the_commands_run_them(shop_words, tmp_path, capsys, name):
    words = [*shop_words, *BASELINES[name]]
    labels = ["data.source.rating=stars", "data.positive_from=3", "evaluation.protocol=labels"]
    if name == "item_knn":
        assert main([*words, "evaluation.protocol=candidates", "evaluation.candidates=9"]) == 0
        assert main([*words, *labels, "data.split=time"]) == 0
    assert main(words) == 0
    capsys.readouterr()
    last = [f"output={tmp_path / 'runs'}", "run=last", "k=3"]
    for asked in ("user=u3", "history=000,001"):
        assert recommend([*last, asked]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
    if name in ("item_knn", "ease"):  # who likes red gets red
        assert all("red" in line for line in lines)
        assert recommend([*last, "text=red chair"]) == 2
        assert "give user= or history=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["item_knn", "ease", "last"])
def test_candidates_are_scored_as_the_catalog_is(shop_words, name):
    lists = ["evaluation.protocol=candidates", "evaluation.candidates=9"]
    made = assembled(shop_words, *BASELINES[name], *lists)
    model, rows = made.recommender, made.examples.make_list_rows(made.datamodule.lists[2])
    batch = made.examples.make_batch(rows, made.datamodule.sizes)
    every = model.score(model.queries(batch, model.index(batch.plan)), model.index_catalog())
    want = every.gather(1, batch.plan.items[batch.candidates])
    assert torch.allclose(model(batch).scores, want)
    assert torch.allclose(model.score_candidates(batch, model.index(batch.plan)), want)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["architecture=ease", "architecture.limit_gb=1e-9"], r"item_knn"),
        (["architecture=ease", "architecture.l2=0"], r"above 0"),
        (["architecture=item_knn", "architecture.neighbours=0"], "1 or more"),
        (["architecture=item_knn", "architecture.window=0"], "1 or more"),
        (["architecture=item_knn", "architecture.gap=inverse"], "architecture.window=null"),
        ([*BASELINES["windowed"], "architecture.backward=-1"], "0 or more"),
        (["architecture=popularity", "architecture.kind=decay", "architecture.days=0"], "above 0"),
        ([*BASELINES["recent"], "data.source.time=''"], "needs times"),
        (["architecture=item_knn", "tuning=lora"], "does not train"),
    ],
)
def test_what_makes_no_sense_is_refused(shop_words, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        assembled(shop_words, *words)


def test_no_training_event_is_told(shop_words):
    made = assembled(shop_words, "architecture=item_knn")
    split: Split = made.split
    empty = Interactions.from_split(
        dataclasses.replace(split, role=np.full_like(split.role, 2)), np.arange(0)
    )
    parts = dataclasses.replace(made.recommender.parts, interactions=empty)
    with pytest.raises(ConfigError, match="the split holds none"):
        type(made.recommender)(parts, compose([*shop_words, "architecture=item_knn"]).architecture)
