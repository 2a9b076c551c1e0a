"""Lists as they are chosen: unlike each other, of what another run proposes, with why."""

import re
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.data.columns.words import split_words
from recsys.errors import ConfigError
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.recommend.lines import format_rows, get_width
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.diversity import diversify
from recsys.trained.run import load

MOVED = ("optimizer.lr=0.05", "trainer.max_steps=4", "checkpoint.pick=last")
CROSS = ("architecture=cross_encoder", "objective=bce", "evaluation.protocol=candidates", *MOVED)
KINDS = {
    "recency": ["tuning=frozen", "architecture.history=recency", *MOVED],
    "separate": ["tuning=frozen", "architecture.towers=separate", *MOVED],
    "prior": ["tuning=frozen", "architecture.popularity=true", *MOVED],
    "late": ["architecture=late_interaction", "objective=bce", "tuning=frozen", *MOVED],
    "cross": [*CROSS, "evaluation.candidates=12"],
    "ease": ["architecture=ease"],
    "ease_text": ["architecture=ease", "architecture.vectors=encoder", "architecture.rho=30"],
    "item_knn": ["architecture=item_knn"],
    "item_knn_text": ["architecture=item_knn", "architecture.vectors=encoder"],
    "popularity": ["architecture=popularity"],
    "tfidf": ["architecture=tfidf"],
}
PLAIN = ("recency", "separate", "prior", "ease", "ease_text", "item_knn", "item_knn_text")
RARE = ("separate", "prior", "item_knn_text")
HISTORIES = [["000", "007"], ["012", "003"], ["025"]]


@pytest.fixture
def train(shop_base, tmp_path, monkeypatch):
    """Trains on the shop and gives the run."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(*more, name="run"):
        assert fit([*shop_base, f"output={tmp_path / name}", *more]) == 0
        return load("last", tmp_path / name)

    return run


def list_ids(run):
    return run.suggester.model.tables.items["item"].to_list()


def represent(run, kind):
    """(I, F) what stands for each item, by another way than the one under test."""
    made = run.suggester.model
    recommender = made.recommender.eval()
    if kind in ("recency", "separate", "prior"):
        return run.suggester.catalog[:, :32].numpy()
    if kind == "late":
        tokens = [recommender.states.encode_rows(run.suggester.catalog[[i]]) for i in range(30)]
        head = recommender.item_head
        own = [recommender._project(each, head).values.mean(0) for each in tokens]
        return torch.stack(own).detach().numpy()
    if kind in ("cross", "popularity", "tfidf"):
        words = TfidfVectorizer(sublinear_tf=True, tokenizer=split_words, token_pattern=None)
        return words.fit_transform(recommender.parts.texts).toarray()
    # What an item adds to the scores of others is what it is worth as the only one of a history.
    ids = list_ids(run)
    alone = run.recommend(histories=[[item] for item in ids], k=30, exclude_seen=False)
    return np.array(
        [
            [dict(zip(*own[["item", "score"]], strict=True))[item] for own in alone]
            for alone in [alone.partition_by("query", maintain_order=True)]
            for item in ids
        ]
    )


def assert_greedy(chosen, pool, vectors, diversity):
    """Each item has the largest gain of those that are left, up to rounding."""
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.where(lengths > 1e-9, lengths, np.inf)[:, None]
    items, scores = pool["item"].to_list(), pool["score"].to_numpy()
    spread = np.ptp(scores)
    relevance = (scores - scores.min()) / spread if spread else 0 * scores
    rows = {item: int(item) for item in items}
    first = items.index(chosen[0])
    assert scores[first] == pytest.approx(scores.max(), abs=1e-6)
    for count in range(1, len(chosen)):
        gains = {}
        for item, own in zip(items, relevance, strict=True):
            if item not in chosen[:count]:
                near = max(float(unit[rows[item]] @ unit[rows[x]]) for x in chosen[:count])
                gains[item] = (1 - diversity) * own - diversity * near
        assert gains[chosen[count]] >= max(gains.values()) - 2e-5


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in RARE else []) for k in KINDS]
)
def test_a_diverse_list_is_the_greedy_one(kind, train, tmp_path):
    run = train(*KINDS[kind])
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    vectors = represent(run, kind)
    plain = run.recommend(histories=HISTORIES, k=6)
    assert run.recommend(histories=HISTORIES, k=6, diversity=0).equals(plain)
    # a model that reads pairs is given the items that are proposed to it
    every = run.recommend(histories=HISTORIES, k=12 if kind == "cross" else 30)
    lists = {}
    for diversity in (0.3, 0.8, 1.0):
        own = run.recommend(histories=HISTORIES, k=6, diversity=diversity)
        lists[diversity] = own["item"].to_list()
        assert own["rank"].to_list() == [1, 2, 3, 4, 5, 6] * 3
        both = own.join(every, on=["query", "item"])
        assert both["score"].to_list() == pytest.approx(both["score_right"].to_list(), abs=1e-6)
        for query, part in own.group_by("query", maintain_order=True):
            pool = every.filter(query=query[0])
            assert_greedy(part["item"].to_list(), pool, vectors, diversity)
        for query, part in bundle.recommend(histories=HISTORIES, k=6, diversity=diversity).group_by(
            "query", maintain_order=True
        ):
            assert_greedy(part["item"].to_list(), every.filter(query=query[0]), vectors, diversity)
    assert lists[1.0] != plain["item"].to_list()
    assert (bundle._plain is not None) == (kind in (*PLAIN, "popularity"))


def test_a_list_for_a_text_is_as_diverse_without_the_model(train, tmp_path):
    run = train("tuning=lora", "architecture.user=text", *MOVED)
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    vectors = represent(run, "recency")
    every = run.recommend(texts=["red lamp"], k=30)
    for model in (run, bundle):
        own = model.recommend(texts=["red lamp"], k=6, diversity=0.6)
        assert_greedy(own["item"].to_list(), every, vectors, 0.6)
    assert bundle._plain is not None
    assert "suggester" not in bundle.__dict__


def test_a_pool_is_longer_than_the_list_and_an_equal_score_says_nothing():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 5)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = np.full(40, 0.5, dtype=np.float32)
    chosen = diversify(flat, unit @ unit.T, 3, 0.5)
    assert chosen[0] == 0
    assert chosen[1] == (unit @ unit[0]).argmin()
    assert len(set(diversify(flat, unit @ unit.T, 50, 0.5).tolist())) == 40
    assert len(diversify(flat[:0], np.zeros((0, 0), dtype=np.float32), 3, 0.5)) == 0


def test_the_command_gives_columns_what_was_had_and_diverse_lists(train, capsys):
    run = train("architecture=ease")
    asked = [f"run={run.folder}", "history=000,007", "because=false"]

    def printed(*more):
        capsys.readouterr()
        assert recommend([*asked, *more]) == 0
        return capsys.readouterr().out.splitlines()

    for _ in range(2):  # by the model, then by what it has kept
        rows = run.recommend(
            histories=[["000", "007"]], k=5, columns=["name"], exclude_seen=False, diversity=0.4
        )
        lines = printed("k=5", "columns=name", "exclude_seen=false", "diversity=0.4")
        assert lines == format_rows(rows, ["name"], None)
        assert all(
            f"name: {row['name']}" in line
            for row, line in zip(rows.iter_rows(named=True), lines, strict=True)
        )
    had = printed("exclude_seen=false", "k=30")
    assert len(had) == 30
    unseen = {line.split()[2] for line in printed("k=30")}
    assert {line.split()[2] for line in had} - unseen == {"000", "007"}
    for word, said in (
        ("columns=price", "the items have no further column 'price' (there are: name, text)"),
        ("columns=name,name", "columns names 'name' twice"),
        ("columns=name,", "columns= names no column"),
        ("exclude_seen=no", "exclude_seen is 'no'; set it to true or false"),
        ("diversity=1.5", "diversity is 1.5; give a number from 0"),
        ("diversity=much", "diversity is 'much'; give a number from 0 to 1"),
        ("diversity=nan", "diversity is 'nan'; give a number from 0 to 1"),
    ):
        assert recommend([*asked, word]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="diversity is -1; give a number from 0"):
        run.recommend(users=["u3"], diversity=-1)
    with pytest.raises(ConfigError, match="columns is the text 'name'"):
        run.recommend(users=["u3"], columns="name")


def test_a_line_is_as_long_as_the_terminal_and_whole_in_a_file(monkeypatch):
    long = "red \x1b[2J lamp " * 20
    titles = [long, "\u8d64\u3044\u30e9\u30f3\u30d7" * 20, "short"]
    rows = pl.DataFrame(
        {
            "rank": [1, 2, 3],
            "score": [0.5, -1.25, 10.0],
            "item": ["a", "b" * 90, "c"],
            "title": titles,
            "kinds": [["x", "y\n"], None, ["z" * 50]],
            "year": [1990, None, 3],
        }
    )
    whole = format_rows(rows, ["kinds", "year"], None)
    assert whole[2] == f"  3   10.0000  c             short  kinds: {'z' * 50}  year: 3"
    assert whole[0].endswith("lamp   kinds: x, y   year: 1990")
    for width in (40, 60, 80, 200):
        for columns in ([], ["year"], ["kinds", "year"]):
            for line in format_rows(rows, columns, width):
                assert sum(1 + (0x3000 < ord(sign) < 0xFF00) for sign in line) <= width
                assert line.isprintable()
    cut = format_rows(rows, ["kinds", "year"], 80)
    assert cut[0].endswith("...  kinds: x, y   year: 1990")
    assert cut[2].startswith("  3   10.0000  c             short  kinds: z")
    assert format_rows(rows.head(1), [], 400) == format_rows(rows.head(1), [], None)
    assert get_width() is None
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    assert get_width() == 72
    monkeypatch.setenv("COLUMNS", "7")
    assert get_width() == 40


@pytest.mark.parametrize("kind", ["recency", "ease", "late", "tfidf"])
def test_a_run_that_proposes_to_itself_gives_the_same_list(kind, train):
    run = train(*KINDS[kind])
    asked = {"histories": HISTORIES, "k": 7, "where": "item != '004'"}
    for more in ({}, {"exclude_seen": False}, {"diversity": 0.5}):
        alone = run.recommend(**asked, **more)
        # all that diversity chooses from
        both = run.recommend(**asked, **more, retriever=run, candidates=30)
        assert both.drop("score").equals(alone.drop("score"))
        assert both["score"].to_list() == pytest.approx(alone["score"].to_list(), rel=1e-6)


def test_a_cross_encoder_ranks_what_another_run_or_a_bundle_proposes(train, tmp_path, capsys):
    knn = train("architecture=item_knn", name="knn")
    cross = train(*CROSS, "evaluation.candidates=6", name="cross")
    proposed = knn.recommend(histories=HISTORIES, k=6)
    for retriever in (knn, open_bundle(write_bundle(knn, tmp_path / "bundle"))):
        ranked = cross.recommend(histories=HISTORIES, k=3, retriever=retriever, columns=["name"])
        whole = cross.recommend(histories=HISTORIES, k=6, retriever=retriever)
        for query, own in whole.group_by("query", maintain_order=True):
            assert sorted(own["item"]) == sorted(proposed.filter(query=query[0])["item"])
            top = ranked.filter(query=query[0])
            assert top["item"].to_list() == own["item"].to_list()[:3]
    few = cross.recommend(users=["u3"], k=2, retriever=knn, candidates=3)
    assert set(few["item"]) <= set(knn.recommend(users=["u3"], k=3)["item"])
    # by itself, it ranks what popularity and tf-idf propose, and as many as are asked for
    own = cross.recommend(users=["u3"], k=2, candidates=4)
    assert own.height == 2
    capsys.readouterr()
    words = [f"run={cross.folder}", "user=u3", "k=2", "candidates=3"]
    assert recommend([*words, f"retriever={knn.folder}"]) == 0
    first = capsys.readouterr().out
    assert first.splitlines() == format_rows(few, [], None)
    assert recommend([*words, f"retriever={tmp_path / 'bundle'}"]) == 0
    assert capsys.readouterr().out == first
    for more, said in (
        (["retriever="], "retriever= names no folder"),
        (["retriever=nowhere"], "nowhere/config.yaml is missing"),
        (["candidates=0"], "candidates is '0'; give a whole number from 1"),
    ):
        assert recommend([*words[:-1], *more]) == 2
        assert said in capsys.readouterr().err


def test_a_retriever_that_cannot_propose_raises_a_clear_error(train, shop, tmp_path):
    run = train("architecture=ease")
    items = (shop / "items.csv").read_text().splitlines()
    (tmp_path / "items.csv").write_text("\n".join([*items, "999,red thing"]) + "\n")
    more = train("architecture=tfidf", f"data.source.items={tmp_path / 'items.csv'}", name="more")
    with pytest.raises(ConfigError, match=r"retriever tfidf: it ranks another catalog: 1 of its"):
        run.recommend(users=["u3"], retriever=more)
    with pytest.raises(ConfigError, match=r"0 of its items are not here, and 1 of those here are"):
        more.recommend(users=["u3"], retriever=run)
    with pytest.raises(ConfigError, match=r"retriever ease: .* does not read texts"):
        train("architecture=tfidf", name="same").recommend(texts=["red"], retriever=run)
    with pytest.raises(ConfigError, match="this run ranks all items"):
        run.recommend(users=["u3"], candidates=5)
    with pytest.raises(ConfigError, match="candidates is '0'"):
        run.recommend(users=["u3"], candidates=0)
    nobody = open_bundle(write_bundle(run, tmp_path / "bundle", users=False))
    with pytest.raises(ConfigError, match=r"retriever ease: No user has the id 'u3'"):
        run.recommend(users=["u3"], retriever=nobody)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in RARE else []) for k in KINDS]
)
def test_a_list_says_what_the_explanation_says(kind, train, tmp_path):
    run = train(*KINDS[kind])
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    histories = [["000", "007", "000", "003"], ["012"], []]
    for model in (run, bundle):
        own = model.recommend(histories=histories, k=3, because=True, exclude_seen=False)
        assert own.columns[-1] == "because"
        assert own.drop("because").equals(
            model.recommend(histories=histories, k=3, exclude_seen=False)
        )
        exact = model.recommend(histories=histories, k=3, because=None, exclude_seen=False)
        for row, other in zip(own.iter_rows(named=True), exact["because"], strict=True):
            had = row["query"].split(",") if row["query"] else []
            why = model.explain(row["item"], history=had)
            assert other == (row["because"] if why.method == "exact" else "")
            if why.method == "leave_one_out" or kind == "popularity" or not had:
                assert row["because"] == why.because
                continue
            # shares of two ways to compute may be rounded to another percent
            assert numbers(row["because"]) == pytest.approx(numbers(why.because), abs=1)
            assert re.sub(r"\d+%", "", row["because"]) == re.sub(r"\d+%", "", why.because)
    assert set(run.recommend(histories=[[]], because=True)["because"]) <= {
        "because it is popular",
        "",
    }
    if kind in ("recency", "tfidf", "ease_text"):
        for model in (run, bundle):
            assert set(model.recommend(texts=["red lamp"], because=True)["because"]) == {""}


@pytest.mark.parametrize("kind", ["recency", "late", "cross", "ease", "item_knn", "tfidf"])
def test_a_list_may_be_empty(kind, train, tmp_path):
    run = train(*KINDS[kind])
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    asked = {"histories": HISTORIES, "where": "item = 'none'", "because": True}
    for model in (run, bundle):
        for more in ({}, {"diversity": 0.5}, {"retriever": run, "diversity": 0.5}):
            rows = model.recommend(**asked, **more)
            assert rows.columns == ["query", "rank", "item", "score", "title", "because"]
            assert rows.height == 0
    assert run.recommend(histories=[], because=True, diversity=0.5).height == 0


def test_a_notebook_shows_titles_as_they_are(train, shop, tmp_path):
    items = (shop / "items.csv").read_text().replace("red lamp", "<img src=x onerror=y>")
    (tmp_path / "items.csv").write_text(items)
    run = train("architecture=ease", f"data.source.items={tmp_path / 'items.csv'}")
    rows = run.recommend(histories=[["001", "002"]], k=30, because=True, exclude_seen=False)
    assert "<img src=x onerror=y>" in rows["title"].to_list()
    with pl.Config(tbl_rows=-1, fmt_str_lengths=200):
        page = rows._repr_html_()
    assert "<img" not in page
    assert "&lt;img src=x onerror=y&gt;" in page


def numbers(line):
    return [int(share) for share in re.findall(r"(\d+)%", line)]


def test_the_command_says_why_where_it_costs_nothing(train, monkeypatch, capsys):
    run = train("architecture=ease")
    words = [f"run={run.folder}", "history=000,007", "k=3"]
    rows = run.recommend(histories=[["000", "007"]], k=3, because=True)
    assert all(line.startswith('because you had "') for line in rows["because"])

    def printed(*more):
        capsys.readouterr()
        assert recommend([*words, *more]) == 0
        return capsys.readouterr().out.splitlines()

    for _ in range(2):  # by the model, then by what it has kept
        lines = printed()
        assert lines == format_rows(rows, [], None)
        assert [line.partition("  because")[2] for line in lines] == [
            line.removeprefix("because") for line in rows["because"]
        ]
        assert printed("because=false") == format_rows(rows.drop("because"), [], None)
    shown = format_rows(rows, [], 60)
    assert len(shown) == 6
    assert all(line.startswith("     because you had") for line in shown[1::2])
    assert max(map(len, shown)) <= 60
    assert recommend([*words, "because=maybe"]) == 2
    assert "because is 'maybe'; set it to true or false" in capsys.readouterr().err
