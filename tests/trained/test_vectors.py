"""Vectors and scores of a run are those that its lists are made of."""

import numpy as np
import pytest

from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load

MOVED = ("optimizer.lr=0.05", "trainer.max_steps=4", "checkpoint.pick=last")
CROSS = ("architecture=cross_encoder", "objective=bce", "evaluation.protocol=candidates", *MOVED)
TOWERS = {
    "recency": ["tuning=lora", "architecture.history=recency", *MOVED],
    "prior": ["tuning=frozen", "architecture.towers=separate", "architecture.popularity=true"],
    "dot": ["tuning=frozen", "architecture.score=dot", "architecture.item=text+id", *MOVED],
    "user_text": ["tuning=frozen", "architecture.user=text", *MOVED],
    "causal": ["tuning=frozen", "architecture.history=causal", *MOVED],
}
OTHERS = {
    "mlp": ["tuning=frozen", "architecture.score=mlp", *MOVED],
    "late": ["architecture=late_interaction", "objective=bce", "tuning=lora", *MOVED],
    "cross": [*CROSS, "evaluation.candidates=9"],
    "ease": ["architecture=ease"],
    "ease_text": ["architecture=ease", "architecture.vectors=encoder", "architecture.rho=30"],
    "item_knn": ["architecture=item_knn"],
    "popularity": ["architecture=popularity"],
    "tfidf": ["architecture=tfidf"],
}
RARE = ("dot", "causal", "mlp", "item_knn")
SILENT = ("ease", "item_knn", "popularity")
"""Kinds that read no texts."""
HISTORIES = [["000", "007"], ["012", "003", "012"], []]
TEXTS = ["red lamp", "brown chair"]


@pytest.fixture
def train(shop_base, tmp_path, monkeypatch):
    """Trains on the shop and gives the run."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(*more, name="run"):
        assert fit([*shop_base, f"output={tmp_path / name}", *more]) == 0
        return load("last", tmp_path / name)

    return run


def mark(kinds):
    return [pytest.param(k, marks=[pytest.mark.slow] if k in RARE else []) for k in kinds]


def assert_scored(model, want, queries, kind):
    """The scores of the pairs of a list, in another order, are those of the list."""
    labels = [",".join(of) if kind == "history" else of for of in queries]
    mixed = want.sample(fraction=1.0, shuffle=True, seed=0)
    pairs = [
        (queries[labels.index(query)], item) for query, item in mixed[["query", "item"]].iter_rows()
    ]
    found = model.score(pairs, kind=kind)
    assert found.dtype == np.float32
    # one part in a million: scores of cosines go up to 20
    np.testing.assert_allclose(found, mixed["score"].to_numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", mark([*TOWERS, *OTHERS]))
def test_a_score_is_what_recommend_prints(kind, train, tmp_path):
    run = train(*(TOWERS | OTHERS)[kind])
    asked = {"user": ["u3", "u17"], "history": HISTORIES, "text": TEXTS}
    many = {"user": "users", "history": "histories", "text": "texts"}
    if kind in SILENT:
        with pytest.raises(ConfigError, match="does not read texts"):
            run.score([("red lamp", "000")], kind="text")
        del asked["text"]
    lists = {
        of: run.recommend(**{many[of]: queries}, k=9, exclude_seen=False)
        for of, queries in asked.items()
    }
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for model in (run, bundle):
        for of, queries in asked.items():
            assert_scored(model, lists[of], queries, of)
    assert run.score([]).shape == (0,)


@pytest.mark.parametrize("kind", mark(TOWERS))
def test_two_vectors_make_the_score(kind, train, tmp_path):
    run = train(*TOWERS[kind])
    own = run.suggester.model.recommender.describe_score(run.suggester.catalog)
    added = np.zeros(30) if own.added is None else own.added.numpy()
    histories = HISTORIES[:2]
    lists = {
        "users": run.recommend(users=["u3", "u17"], k=30, exclude_seen=False),
        "histories": run.recommend(histories=histories, k=30, exclude_seen=False),
        "texts": run.recommend(texts=TEXTS, k=30),
    }
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for model in (run, bundle):
        ids, items = model.item_vectors()
        assert items.dtype == np.float32
        assert items.shape == (30, 32)
        assert ids == [f"0{i:02d}" for i in range(30)]
        users = model.user_vectors(users=["u3", "u17"])
        assert users.ids == ["u3", "u17"]
        had = model.user_vectors(histories=histories)
        assert had.ids == ["000,007", "012,003,012"]
        vectors = {
            "users": users.vectors,
            "histories": had.vectors,
            "texts": model.encode(TEXTS),
        }
        for name, found in vectors.items():
            assert found.dtype == np.float32
            scores = own.scale * found @ items.T + added
            want = lists[name].sort("query", "item", maintain_order=True)
            order = np.argsort(lists[name]["query"].unique(maintain_order=True).to_list())
            np.testing.assert_allclose(
                scores[order].ravel(), want["score"].to_numpy(), rtol=1e-4, atol=1e-4
            )
    empty = run.user_vectors(histories=[[]]).vectors
    assert bool(empty.any()) == (kind == "user_text")
    assert run.user_vectors(users=[]).vectors.shape == (0, 32)
    assert run.encode([]).shape == (0, 32)


def test_token_vectors_make_the_score_of_late_interaction(train):
    run = train(*OTHERS["late"])
    for call in (run.item_vectors, lambda: run.encode(["red"])):
        with pytest.raises(ConfigError, match=r"a vector for each token .* token_vectors\(\)"):
            call()
    ids, starts, items = run.token_vectors(items=["007", "000", "007"])
    assert ids == ["007", "000", "007"]
    assert starts.dtype == np.int64
    np.testing.assert_array_equal(items[: starts[1]], items[starts[2] :])
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, rtol=1e-5)
    texts = run.token_vectors(texts=TEXTS)
    scale = float(run.suggester.model.recommender.log_scale.detach().exp())
    for place, text in enumerate(TEXTS):
        asking = texts.vectors[texts.offsets[place] : texts.offsets[place + 1]]
        for row, item in enumerate(ids):
            other = items[starts[row] : starts[row + 1]]
            want = scale * (asking @ other.T).max(1).mean()
            assert run.score([(text, item)], kind="text")[0] == pytest.approx(want, rel=1e-5)
    with pytest.raises(DataError, match="nothing"):
        run.token_vectors(items=["nothing"])


def test_what_has_no_vectors_or_makes_no_sense_raises_a_clear_error(train):
    run = train("architecture=ease")
    for call in (
        run.item_vectors,
        lambda: run.user_vectors(users=["u3"]),
        lambda: run.encode(["red"]),
    ):
        with pytest.raises(ConfigError, match="has no vector for each item"):
            call()
    with pytest.raises(ConfigError, match="has no vector for each token"):
        run.token_vectors(items=["000"])
    for more in ({}, {"users": ["u3"], "histories": [["000"]]}):
        with pytest.raises(ConfigError, match="give one of users= and histories="):
            run.user_vectors(**more)
    with pytest.raises(ConfigError, match="give one of items= and texts="):
        run.token_vectors()
    for pairs, kind, said in (
        (["u3"], "user", "'u3' is no pair of a user and an item"),
        ([("u3", "000", 1)], "user", "is no pair of a user"),
        ([(["000"], "001")], "user", "set kind='history'"),
        ([(7, "001")], "history", "7 is no list of item ids"),
        ([("000", "001")], "history", "a history is the text '000'"),
        ([("u3", "000")], "item", "kind is 'item', which is none"),
    ):
        with pytest.raises(ConfigError, match=said):
            run.score(pairs, kind=kind)
    for pairs in ([("nobody", "000")], [("u3", "nothing")]):
        with pytest.raises(DataError, match=r"nobody|nothing"):
            run.score(pairs)


def test_an_ensemble_scores_explains_and_varies_its_lists(train, tmp_path):
    members = [train("architecture=ease", name="ease"), train("architecture=tfidf", name="tfidf")]
    named = f"architecture.members=[{','.join(str(each.folder) for each in members)}]"
    run = train("architecture=ensemble", named, "architecture.combine=rrf", name="both")
    own = run.recommend(histories=HISTORIES[:2], k=9, exclude_seen=False, because=True)
    assert_scored(run, own, HISTORIES[:2], "history")
    assert own["because"].str.starts_with("because you had").any()
    quick = run.recommend(histories=HISTORIES[:2], k=9, exclude_seen=False, because=None)
    assert set(quick["because"]) == {""}
    varied = run.recommend(histories=HISTORIES[:2], k=9, diversity=0.8)
    assert varied["item"].to_list() != run.recommend(histories=HISTORIES[:2], k=9)["item"].to_list()
    two_stages = run.recommend(histories=HISTORIES[:2], k=4, retriever=members[1], candidates=5)
    proposed = members[1].recommend(histories=HISTORIES[:2], k=5)
    assert two_stages.join(proposed, on=["query", "item"]).height == 8
    with pytest.raises(ConfigError, match="has no vector for each item"):
        run.item_vectors()
