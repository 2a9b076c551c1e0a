"""What each word of a text adds to a score, by the real command on the shop."""

import sys
from dataclasses import replace

import pytest
import torch

from recsys.errors import ConfigError
from recsys.explain.__main__ import main as explain
from recsys.fit.__main__ import main as fit
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.explanations.page import render_page
from recsys.trained.explanations.terminal import format_explanation
from recsys.trained.explanations.words.assembly import assemble_words
from recsys.trained.run import load
from recsys.types import Passage

TOWER = "architecture=two_tower"
LEARNED = ("optimizer.lr=0.05", "checkpoint.pick=last")
LATE = ("architecture=late_interaction", "objective=bce", "tuning=frozen", *LEARNED)
CROSS = (
    *("architecture=cross_encoder", "objective=bce", "evaluation.protocol=candidates"),
    *("evaluation.candidates=10", "trainer.max_steps=2"),
)
MODELS = {
    "tfidf": ["experiment=tfidf"],
    "tfidf of texts": ["architecture=tfidf", "architecture.user=text"],
    "frozen tower": [TOWER, "tuning=frozen", *LEARNED],
    "ids beside texts": [
        *(TOWER, "tuning=lora", "architecture.item=text+id", "architecture.popularity=true"),
        *("architecture.towers=separate", *LEARNED),
    ],
    "causal": [
        *(TOWER, "tuning=adapter", "architecture.history=causal", "architecture.score=dot"),
        *LEARNED,
    ],
    "mlp": [TOWER, "tuning=frozen", "architecture.score=mlp", *LEARNED],
    "users as texts": [TOWER, "tuning=lora", "architecture.user=text", *LEARNED],
    "texts and histories": [TOWER, "tuning=lora", "architecture.user=text+history", *LEARNED],
    "cross-encoder": [*CROSS, "tuning=lora"],
    "late interaction": [*LATE],
    "late interaction of texts": [*LATE, "architecture.user=text"],
    "with special tokens": [*LATE, "architecture.special_tokens=true", "architecture.width=16"],
}
RRF = "architecture.combine=rrf"
EXACT = (
    *("tfidf", "tfidf of texts", "late interaction", "late interaction of texts"),
    "with special tokens",
)
QUERIES = ({"user": "u3"}, {"history": ["017", "003", "021"]}, {"text": "red lamp"})


@pytest.fixture(scope="module")
def train(shop_base, tmp_path_factory):
    """Trains on the shop, each model once, and gives the run as a user opens it."""
    place, trained = tmp_path_factory.mktemp("words"), {}

    def run(*more):
        if more not in trained:
            folder = place / str(len(trained))
            words = [*shop_base, "trainer.max_steps=4", "evaluation.test=false"]
            assert fit([*words, f"output={folder}", *more]) == 0
            trained[more] = folder
        return load("last", trained[more])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(place / "cache"))
        yield run


def list_words(reading):
    return {(text.kind, text.item): [word.text for word in text.words] for text in reading.texts}


@pytest.mark.parametrize("name", MODELS)
def test_words_and_the_rest_sum_to_the_score(train, name):
    run = train(*MODELS[name])
    for query in QUERIES:
        why = run.explain("000", **query, tokens=True)
        assert why == replace(run.explain("000", **query), readings=why.readings)
        assert why.readings
        for reading in why.readings:
            assert reading.method == ("exact" if name in EXACT else "gradients")
            # the function of the tokens is the score that recommend prints, padded or not
            assert reading.score == pytest.approx(why.score, rel=1e-4, abs=1e-4)
            words = sum(text.value for text in reading.texts)
            change = reading.score - reading.baseline - sum(reading.rest.values())
            assert abs(words - change) <= 0.01 * abs(change) + 1e-5
            assert reading.error <= 0.01
            shares = [word.share for text in reading.texts for word in text.words]
            assert sum(map(abs, shares)) == pytest.approx(1)
            for text in reading.texts:
                for word in text.words:
                    assert text.text[word.start : word.end] == word.text
        item = [reading for reading in why.readings if ("item", "000") in list_words(reading)]
        assert [list_words(reading)["item", "000"] for reading in item] == [["red", "lamp"]]
        if "text" in query:
            asking = [r for r in why.readings if ("text", None) in list_words(r)]
            assert list_words(asking[0])["text", None] == ["red", "lamp"]


def test_a_cross_encoder_reads_user_and_candidate_as_one_function(train):
    (reading,) = train(*MODELS["cross-encoder"]).explain("000", **QUERIES[1], tokens=True).readings
    assert list_words(reading) == {
        ("title", "021"): ["white", "chair"],
        ("title", "003"): ["red", "shelf"],
        ("title", "017"): ["black", "table"],
        ("item", "000"): ["red", "lamp"],
    }


def test_titles_of_a_history_are_read_apart_the_strongest_first(train):
    run = train(*MODELS["frozen tower"])
    why = run.explain("000", **QUERIES[1], tokens=True, titles=2)
    strongest = [part.item for part in why.history[:2]]
    assert [list(list_words(r)) for r in why.readings] == [
        [("item", "000")],
        *([("title", item)] for item in strongest),
    ]
    assert len(run.explain("000", **QUERIES[1], tokens=True, titles=0).readings) == 1


def test_what_is_learned_of_a_row_stands_apart(train):
    run = train(*MODELS["ids beside texts"])
    first = run.explain("000", **QUERIES[1], tokens=True).readings[0]
    assert list(first.rest) == ["learned vector", "popularity"]
    model = run.suggester.model.recommender
    prior = float(model.prior(torch.tensor([0])).detach())
    assert first.rest["popularity"] == pytest.approx(prior, abs=1e-4)
    with torch.no_grad():
        model.ids.vectors.zero_()
    bare = run.explain("000", **QUERIES[1], tokens=True).readings[0]
    assert bare.rest["learned vector"] == pytest.approx(0, abs=1e-4)
    assert abs(first.rest["learned vector"]) > 1e-3


def test_a_term_of_tfidf_adds_the_product_of_both_weights(train):
    run = train("architecture=tfidf", "architecture.user=text")
    why = run.explain("000", text="Red lamp red unheard", tokens=True)
    vectorizer = run.suggester.model.recommender.vectorizer
    left, right = (vectorizer.transform([t]).toarray()[0] for t in ("red lamp red", "red lamp"))
    red, lamp = (vectorizer.vocabulary_[word] for word in ("red", "lamp"))
    item, asked = why.readings
    assert [w.value for w in item.texts[0].words] == pytest.approx(
        [left[red] * right[red], left[lamp] * right[lamp]], abs=1e-6
    )
    # the word that stands twice is one term
    assert [(w.text, pytest.approx(w.value, abs=1e-6)) for w in asked.texts[0].words] == [
        ("Red", left[red] * right[red] / 2),
        ("lamp", left[lamp] * right[lamp]),
        ("red", left[red] * right[red] / 2),
        ("unheard", 0.0),
    ]


def test_late_interaction_says_which_word_each_finds(train):
    run = train(*MODELS["late interaction"], "architecture.titles=1", "architecture.heads=false")
    item, asking = run.explain("000", history=["000"], tokens=True).readings
    assert [(w.text, w.match) for w in asking.texts[0].words] == [("red", "red"), ("lamp", "lamp")]
    # each finds itself: a cosine of 1, of the mean of two
    values = [w.value for w in (*asking.texts[0].words, *item.texts[0].words)]
    assert values == pytest.approx([item.score / 2] * 4, rel=1e-4)


@pytest.mark.parametrize("name", ["users as texts", "cross-encoder", "late interaction"])
def test_a_bundle_reads_words_as_its_run_does(train, tmp_path, name):
    run = train(*MODELS[name])
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for query in QUERIES:
        mine, theirs = (m.explain("000", **query, tokens=True) for m in (bundle, run))
        left, right = mine.to_word_frame(), theirs.to_word_frame()
        assert left.drop("value", "share").equals(right.drop("value", "share"))
        assert left["value"].to_list() == pytest.approx(right["value"].to_list(), abs=2e-3)


def test_words_of_a_prompt_are_no_words_of_the_text(train):
    prompts = ("encoder.item_prompt='red: '", "encoder.query_prompt='blue '")
    run = train(TOWER, "tuning=frozen", "architecture.user=text", *prompts)
    item, user = run.explain("000", user="u3", tokens=True).readings
    assert list_words(item) == {("item", "000"): ["red", "lamp"]}
    assert all(words[0] != "blue" for words in list_words(user).values())
    asked = run.explain("000", text="red lamp", tokens=True).readings[1]
    assert list_words(asked) == {("text", None): ["red", "lamp"]}
    assert [word.start for word in asked.texts[0].words] == [0, 4]


@pytest.mark.parametrize("kind", ["cross-encoder", "users as texts"])
def test_what_is_said_of_the_moment_is_a_text_of_its_own(
    situated_words, tmp_path, kind, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    more = ["architecture.context=[device]", "trainer.max_steps=2", "encoder.query_prompt='red '"]
    if kind == "users as texts":
        more.append("architecture.context_as=text")
    assert fit([*situated_words, *MODELS[kind], *more]) == 0
    run = load("last", tmp_path / "runs")
    for query in QUERIES:
        why = run.explain("000", **query, tokens=True, context={"device": "phone"})
        asking = list_words(why.readings[-1])
        assert asking["context", None] == ["device:", "phone"]
        assert ("text" in query) == (("text", None) in asking)
        for reading in why.readings:
            assert reading.score == pytest.approx(why.score, rel=1e-4, abs=1e-4)
            assert reading.error <= 0.01


@pytest.mark.parametrize(
    ("text", "spans", "want"),
    [
        # sub-words, a punctuation mark and a token that begins with its blank
        (
            "unseen, so",
            [(0, 2), (2, 6), (6, 7), (7, 10)],
            [("unseen,", 6.0), ("so", 4.0)],
        ),
        # bytes: the four of a face stand at the same place, and a joined family is one word
        (
            "a \U0001f600 \U0001f468\u200d\U0001f469 z",
            [(0, 1), (1, 3), (2, 3), (2, 3), (3, 5), (5, 6), (6, 7), (7, 9)],
            [
                ("a", 1.0),
                ("\U0001f600", 9.0),
                ("\U0001f468\u200d\U0001f469", 18.0),
                ("z", 8.0),
            ],
        ),
        # right to left: places are those of the stored text
        (
            "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
            [(0, 2), (2, 4), (5, 9)],
            [("\u05e9\u05dc\u05d5\u05dd", 3.0), ("\u05e2\u05d5\u05dc\u05dd", 3.0)],
        ),
        # no blanks: each character is a word, and a token of two is divided evenly
        ("\u7ea2\u706f x", [(0, 2), (2, 4)], [("\u7ea2", 0.5), ("\u706f", 0.5), ("x", 2.0)]),
        # a token of a blank alone goes to the word behind it, or to the last
        ("a b ", [(0, 1), (1, 2), (2, 3), (3, 4)], [("a", 1.0), ("b", 9.0)]),
        # nothing is read of the last word
        ("a b", [(0, 1)], [("a", 1.0)]),
        ("  ", [(0, 1)], []),
    ],
)
def test_words_are_put_together_of_what_the_tokenizer_says_of_places(text, spans, want):
    passage = Passage("item", text, 0, tuple(spans))
    words = assemble_words(passage, [float(n + 1) for n in range(len(spans))])
    assert [(word.text, word.value) for word in words] == want
    behind = Passage("item", f"p: {text}", 3, tuple((a + 3, b + 3) for a, b in spans))
    assert assemble_words(behind, [float(n + 1) for n in range(len(spans))]) == words


def test_emoji_and_right_to_left_of_a_real_tokenizer_keep_their_places(
    shop, shop_base, tiny_bytes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    rows = (shop / "items.csv").read_text().splitlines()
    title = "\U0001f534 \u05de\u05e0\u05d5\u05e8\u05d4 <b>caf\u00e9</b>"
    (tmp_path / "items.csv").write_text("\n".join([rows[0], f"000,{title}", *rows[2:]]) + "\n")
    own = [w for w in shop_base if not w.startswith(("data.source.items", "encoder.model"))]
    words = [*own, f"data.source.items={tmp_path / 'items.csv'}", f"encoder.model={tiny_bytes}"]
    more = [TOWER, "tuning=frozen", "trainer.max_steps=2", "encoder.max_length=64"]
    assert fit([*words, *more, f"output={tmp_path / 'runs'}"]) == 0
    run = load("last", tmp_path / "runs")
    why = run.explain("000", history=["017"], tokens=True, titles=0)
    assert list_words(why.readings[0]) == {("item", "000"): title.split()}
    page = render_page(why)
    assert "<b>" not in page
    assert "&lt;b&gt;caf\u00e9&lt;/b&gt;" in page


def test_the_command_prints_words_and_writes_them_on_the_page(train, tmp_path, capsys, monkeypatch):
    run = train(*MODELS["cross-encoder"])
    monkeypatch.setenv("COLUMNS", "70")
    capsys.readouterr()
    page = tmp_path / "why.html"
    words = [f"run={run.folder}", "history=017,003", "item=000", "tokens=true", "most=3"]
    assert explain([*words, f"html={page}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 70 and "\x1b" not in line for line in lines[:-1])
    assert "and 3 more" in lines
    assert sum("%" in line and "(title of the " in line for line in lines) == 3
    html = page.read_text()
    assert html.count('class="word ') == 6
    assert "http" not in html
    why = run.explain("000", history=["017", "003"], tokens=True)
    frame = why.to_word_frame()
    assert frame.columns == [
        *("reading", "kind", "item", "word", "start", "end", "value", "share", "match")
    ]
    assert frame["word"].to_list() == ["red", "shelf", "black", "table", "red", "lamp"]
    coloured = format_explanation(why, 70, 3, colour=True)
    assert any("\x1b[3" in line and "lamp" in line for line in coloured)
    assert run.explain("000", history=["017"]).to_word_frame().is_empty()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (["experiment=popularity"], "not made of the words"),
        (["architecture=ease"], "not made of the words"),
        (["experiment=item_knn"], "not made of the words"),
        ([TOWER, "architecture.item=id", "tuning=frozen"], "architecture.item=id reads no texts"),
    ],
)
def test_a_score_without_words_raises_a_clear_error(train, capsys, model, said):
    run = train(*model)
    capsys.readouterr()
    assert explain([f"run={run.folder}", "user=u3", "item=000", "tokens=true"]) == 2
    assert said in capsys.readouterr().err


def test_an_ensemble_names_its_members_as_those_that_read_words(train):
    members = ",".join(str(train(each).folder) for each in ("experiment=tfidf", "experiment=ease"))
    run = train("architecture=ensemble", f"architecture.members=[{members}]", RRF)
    with pytest.raises(ConfigError, match="give the run of one"):
        run.explain("000", user="u3", tokens=True)
    assert run.explain("000", user="u3").readings is None


def test_masked_copies_have_no_single_text_but_that_of_the_item(train):
    masks = ("data.augment.test_masks=2", "data.augment.mask=0.4")
    run = train(TOWER, "tuning=frozen", *masks)
    (reading,) = run.explain("000", user="u3", tokens=True).readings
    assert list(list_words(reading)) == [("item", "000")]
    run = train(*MODELS["cross-encoder"], *masks)
    with pytest.raises(ConfigError, match="masked copies"):
        run.explain("000", user="u3", tokens=True)
    assert run.explain("000", text="red lamp", tokens=True).readings


def test_words_without_captum_name_the_extra(train, monkeypatch, capsys):
    run = train(*MODELS["frozen tower"])
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    capsys.readouterr()
    assert explain([f"run={run.folder}", "user=u3", "item=000", "tokens=true"]) == 2
    assert "pip install 'recsys[explain]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["tokens=yes"], "tokens is 'yes'"), (["tokens=true", "titles=-1"], "titles is '-1'")],
)
def test_bad_words_raise_a_clear_error(capsys, words, said):
    assert explain(["run=nowhere", "user=u3", "item=000", *words]) == 2
    assert said in capsys.readouterr().err
