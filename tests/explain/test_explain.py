"""What a history adds to a score: exact where it is a sum, in text and on a page."""

import sys

import pytest

from recsys.errors import ConfigError
from recsys.explain.__main__ import main as explain
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.explanations.parts import make_history_parts, write_because
from recsys.trained.queries import Query
from recsys.trained.run import load

TOWER = "architecture=two_tower"
LEARNED = ("tuning=frozen", "optimizer.lr=0.05", "checkpoint.pick=last")
ADDITIVE = {
    "popularity": ["experiment=popularity"],
    "tfidf": ["experiment=tfidf"],
    "item_knn": ["experiment=item_knn", "architecture.recency=0.2"],
    "ease": ["architecture=ease", "architecture.recency=0.2"],
    "ease with texts": [
        *("architecture=ease", "architecture.vectors=encoder", "architecture.rho=50"),
        "architecture.text_l2=1",
    ],
    "mean": [TOWER, *LEARNED, "architecture.history=mean", "architecture.popularity=true"],
    "recency": [TOWER, *LEARNED, "architecture.history=recency", "architecture.towers=separate"],
    "dot": [TOWER, *LEARNED, "architecture.score=dot", "architecture.item=text+id"],
    "late interaction": ["architecture=late_interaction", "objective=bce", *LEARNED],
}


@pytest.fixture
def train(shop_base, tmp_path, monkeypatch):
    """Trains on the shop and gives the run."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))

    def run(*more):
        assert fit([*shop_base, f"output={tmp_path / 'runs'}", *more]) == 0
        return load("last", tmp_path / "runs")

    return run


@pytest.mark.parametrize("name", ADDITIVE)
def test_the_parts_of_an_additive_score_sum_to_what_recommend_prints(train, name):
    run = train(*ADDITIVE[name])
    # an item twice: it is one part
    for query in ({"user": "u3"}, {"history": ["017", "003", "017", "021"]}):
        many = {f"{key}s" if key == "user" else "histories": [of] for key, of in query.items()}
        ranked = run.recommend(**many, k=5)
        for row in ranked.iter_rows(named=True):
            told = run.explain(row["item"], **query)
            assert told.method == "exact"
            assert told.score == pytest.approx(row["score"], abs=1e-5)
            total = sum(part.value for part in told.history) + sum(told.rest.values())
            assert total == pytest.approx(told.score, rel=1e-3, abs=1e-5)
            assert told.error <= 0.01
            assert (ranked["score"] > row["score"]).sum() < told.rank <= row["rank"]
            if "history" in query:
                assert sorted(part.item for part in told.history) == ["003", "017", "021"]


def test_a_part_of_a_linear_model_is_by_how_much_the_score_falls_without_the_item(train):
    run = train("architecture=ease", "architecture.recency=0")
    whole = run.explain("000", history=["001", "002", "006"])
    for part in whole.history:
        left = [item for item in ("001", "002", "006") if item != part.item]
        fallen = whole.score - run.explain("000", history=left).score
        assert part.value == pytest.approx(fallen, abs=1e-6)
    out = run.explain("000", history=["001", "002", "006"], method="leave_one_out")
    assert out.error is out.baseline is None
    assert {p.item: p.value for p in out.history} == pytest.approx(
        {p.item: p.value for p in whole.history}, abs=1e-6
    )


def test_what_is_no_sum_is_explained_by_leaving_items_out(train):
    run = train(
        *("architecture=cross_encoder", "objective=bce", "evaluation.protocol=candidates"),
        *(*LEARNED, "trainer.max_steps=2", "evaluation.candidates=10"),
    )
    told = run.explain("000", history=["001", "017"])
    assert (told.method, told.rank, len(told.history)) == ("leave_one_out", None, 2)
    fallen = {
        left: told.score - run.explain("000", history=[kept]).score
        for left, kept in (("001", "017"), ("017", "001"))
    }
    assert {p.item: p.value for p in told.history} == pytest.approx(fallen, abs=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        ["architecture.history=causal", "architecture.dropout=0.2"],
        ["architecture.history=gru", "architecture.mix=false"],
        ["architecture.history=attention"],
        ["architecture.score=mlp", "architecture.towers=separate"],
    ],
    ids=" ".join,
)
def test_gradients_sum_to_what_the_history_changes(train, more):
    run = train(TOWER, *LEARNED, *more)
    first = run.explain("000", history=["003", "017", "003", "021"])  # before recommend has run
    ranked = run.recommend(histories=[["003", "017", "003", "021"]], k=3)
    for row in ranked.iter_rows(named=True):
        told = run.explain(row["item"], history=["003", "017", "003", "021"])
        assert (told.method, len(told.history)) == ("gradients", 3)
        assert told.score == pytest.approx(row["score"], abs=1e-5)
        change = told.score - told.baseline
        assert abs(sum(part.value for part in told.history) - change) <= 0.01 * abs(change)
        assert told.error <= 0.01
    assert run.explain("000", history=["003", "017", "003", "021"]) == first


def test_gradients_of_a_mean_that_is_not_normalised_are_its_exact_parts(train):
    """A plain product of a plain mean is linear, so that only the baseline is taken off."""
    run = train(TOWER, *LEARNED, "architecture.score=dot", "architecture.history=mean")
    query = {"history": ["003", "017", "021"]}
    exact, other = (run.explain("000", **query, method=m) for m in ("exact", "gradients"))
    fallen = {p.item: p.value - other.baseline / 3 for p in exact.history}
    assert {p.item: p.value for p in other.history} == pytest.approx(fallen, abs=1e-5)


def test_without_captum_the_error_names_the_extra_and_the_other_way(train, monkeypatch, capsys):
    run = train(TOWER, *LEARNED, "architecture.history=attention")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    words = [f"run={run.folder}", "history=003,017", "item=000"]
    capsys.readouterr()
    assert explain(words) == 2
    assert "pip install 'recsys[explain]'" in capsys.readouterr().err
    assert explain([*words, "method=leave_one_out"]) == 0


def test_a_method_that_a_model_does_not_go_with_raises_a_clear_error(train):
    run = train("experiment=item_knn")
    with pytest.raises(ConfigError, match="makes its query of the vectors of items"):
        run.explain("000", history=["003"], method="gradients")
    run = train(TOWER, *LEARNED, "architecture.history=attention")
    with pytest.raises(ConfigError, match="a sum over the history"):
        run.explain("000", history=["003"], method="exact")


def test_masked_copies_of_a_history_are_explained_as_they_are_scored(train):
    run = train(TOWER, *LEARNED, "data.augment.test_masks=2", "data.augment.mask=0.4")
    assert run.explain("000", user="u3").method == "leave_one_out"


@pytest.mark.parametrize("name", ["ease with texts", "recency"])
def test_a_bundle_explains_as_its_run_does(train, tmp_path, name):
    run = train(*ADDITIVE[name])
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for query in ({"user": "u3"}, {"history": ["003", "017"]}):
        mine, theirs = bundle.explain("000", **query), run.explain("000", **query)
        assert (mine.method, mine.rank) == ("exact", theirs.rank)
        values = {part.item: part.value for part in theirs.history}
        assert {p.item: p.value for p in mine.history} == pytest.approx(values, abs=1e-5)


def test_lines_for_a_whole_list_are_those_of_each_item(train):
    run = train(TOWER, *LEARNED)
    items = run.recommend(users=["u3"], k=4)["item"].to_list()
    lines = run.explainer.list_because(Query(user="u3"), items)
    assert lines == [run.explain(item, user="u3").because for item in items]
    assert all(line.startswith('because you had "') for line in lines)


def test_the_line_names_what_speaks_most_for_an_item_and_nothing_that_speaks_against():
    parts = make_history_parts(
        ["a", "b", "c"], ["An\x1b[2J alien", "Other", "Long " * 20], [3.0, -5.0, 2.0]
    )
    assert [part.item for part in parts] == ["b", "a", "c"]
    assert sum(abs(part.share) for part in parts) == pytest.approx(1)
    line = write_because(parts, width=12)
    assert (
        line
        == 'because you had "An\N{REPLACEMENT CHARACTER}[2J alien" (30%) and "Long Long..." (20%)'
    )
    assert write_because(make_history_parts(["a"], ["A"], [-1.0])) == ""
    assert write_because((), ["popularity"]) == "because it is popular"


def test_the_line_calls_what_was_disliked_so():
    parts = make_history_parts(["a", "b"], ["A", "B"], [1.0, 3.0], [False, True])
    assert write_because(parts) == 'because you had "A" (25%) and disliked "B" (75%)'
    assert write_because(parts[:1]) == 'because you disliked "B" (75%)'


def test_the_command_prints_and_writes_what_the_library_says(train, tmp_path, capsys, monkeypatch):
    run = train("experiment=item_knn")
    monkeypatch.setenv("COLUMNS", "60")
    capsys.readouterr()
    page = tmp_path / "pages" / "why.html"  # whose folder is made
    words = [f"run={run.folder}", "user=u3", "item=000", "most=2"]
    assert explain([*words, f"html={page}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = run.explain("000", user="u3")
    assert all(len(line) <= 60 for line in lines[:-1])
    assert lines[1].startswith(f"score {told.score:.4f}")
    assert lines[-1] == f"written to {page}"
    assert f"and {len(told.history) - 2} more" in lines
    html = page.read_text()
    assert all(part.title in html for part in told.history)
    assert "http" not in html


def test_texts_of_others_are_escaped_on_the_page(train):
    from dataclasses import replace

    from recsys.trained.explanations.page import render_page

    run = train("experiment=item_knn")
    evil = "<script>alert('x')</script>"
    told = run.explain("000", user="u3")
    parts = tuple(replace(part, title=evil) for part in told.history)
    page = render_page(replace(told, title=evil, query=evil, item=evil, history=parts))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["user=u3"], "item= names no item"),
        (["user=u3", "item=999"], "'999'"),
        (["user=nobody", "item=000"], "'nobody'"),
        (["user=u3", "item=000", "method=exat"], "Did you mean 'exact'"),
        (["user=u3", "item=000", "most=0"], "most is '0'"),
        (["user=u3", "item=000", "itm=2"], "'itm=2' is not understood"),
        (["item=000"], "give run= or folder=, and one of"),
        (["user=u3", "item=000", f"html={__file__}/a/page.html"], "is no folder; choose another"),
        (["user=u3", "item=000", "html=/"], "html=/ is a folder; name a file"),
        (["user=u3", "user=u4", "item=000"], "user is there twice; keep one."),
    ],
)
def test_bad_words_raise_a_clear_error(train, capsys, words, said):
    run = train("experiment=popularity")
    capsys.readouterr()
    assert explain([f"run={run.folder}", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""
