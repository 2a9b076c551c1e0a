"""Items that a model has not seen are ranked by their texts, as cold items of its own data are."""

import re

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError, DataError
from recsys.explain.__main__ import main as explain
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.testing.shop import make_shop_words, write_encoder, write_shop
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.run import load

MOVED = ["optimizer.lr=0.05", "trainer.max_steps=4", "checkpoint.pick=last"]
KINDS = {
    "mean": ["tuning=lora", "architecture.history=mean", *MOVED],
    "frozen": ["tuning=frozen", "architecture.popularity=true", *MOVED],
    "prior": [
        "tuning=frozen",
        "architecture.popularity=true",
        "architecture.popularity_cold=true",
        *MOVED,
    ],
    "separate": ["tuning=lora", "architecture.towers=separate", *MOVED],
    "user_text": ["tuning=lora", "architecture.user=text", *MOVED],
    "ids": ["tuning=lora", "architecture.item=text+id", *MOVED],
    "causal": ["tuning=frozen", "architecture.history=causal", *MOVED],
    "late": ["architecture=late_interaction", "objective=bce", "tuning=lora", *MOVED],
    "cross": [
        "architecture=cross_encoder",
        "objective=bce",
        "evaluation.protocol=candidates",
        "evaluation.candidates=9",
        *MOVED,
    ],
    "ease": [
        "architecture=ease",
        "architecture.vectors=encoder",
        "architecture.rho=30",
        "architecture.text_l2=1",
    ],
    "item_knn": [
        "architecture=item_knn",
        "architecture.vectors=encoder",
        "architecture.text_weight=0.5",
        "architecture.text_neighbours=9",
    ],
}
RARE = ("prior", "separate", "causal", "late", "cross", "item_knn")
FRESH = pl.DataFrame({"item": ["030", "031"], "name": ["black lamp red", "green table"]})
HISTORIES = [["000", "007"], ["012"], ["003", "004", "003"]]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Trains on the shop, or on one that has the new items without an event as well."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "encoder").mkdir()
    encoder = write_encoder(tmp_path / "encoder")

    def train(*more, fresh=None, name="run"):
        place = tmp_path / f"shop-{name}"
        place.mkdir()
        words = make_shop_words(write_shop(place), encoder)
        if fresh is not None:
            with (place / "items.csv").open("a") as items:
                items.writelines(f"{item},{text}\n" for item, text in fresh.iter_rows())
        assert fit([*words, f"output={tmp_path / name}", *more]) == 0
        (folder,) = (tmp_path / name).iterdir()
        return folder

    return train


def ask(model, items=None):
    return [
        model.recommend(users=["u3", "u17"], k=40, exclude_seen=False, items=items),
        model.recommend(histories=HISTORIES, k=40, exclude_seen=False, items=items),
    ]


def assert_same_scores(one, two):
    for own, other in zip(one, two, strict=True):
        both = own.join(other, on=["query", "item"])
        assert len(both) == len(own) == len(other)
        assert (both["score"] - both["score_right"]).abs().max() <= 1e-5
        assert both["title"].equals(both["title_right"])


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in RARE else []) for k in KINDS]
)
def test_a_new_item_is_scored_as_one_that_the_fit_knew_without_events(kind, shop, tmp_path):
    knew = load(shop(*KINDS[kind], fresh=FRESH, name="knew"))
    run = load(shop(*KINDS[kind]))
    assert not set(FRESH["item"]) & set(ask(run)[0]["item"])
    want = ask(knew)
    assert_same_scores(ask(run, items=FRESH), want)
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    assert_same_scores(ask(bundle, items=FRESH), want)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs on one shop, each trained when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}
    words = make_shop_words(write_shop(root), write_encoder(root / "encoder"))
    words += ["data.source.item_text='{name}. {kind}'"]
    rows = (root / "items.csv").read_text().splitlines()[1:]
    kinds = [f"{row},{'light' if 'lamp' in row else 'wood'}" for row in rows]
    (root / "items.csv").write_text("\n".join(["what,name,kind", *kinds, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_CACHE", str(root / "cache"))

        def get(name, *more):
            if name not in made:
                assert fit([*words, f"output={root / 'runs' / name}", *more]) == 0
                (made[name],) = (root / "runs" / name).iterdir()
            return made[name]

        yield get


TEXTS = ("architecture=ease", "architecture.vectors=encoder", "architecture.rho=30")
MORE = {"item": ["030", "031"], "name": ["red lamp", "blue shelf"], "kind": ["light", "wood"]}


def test_words_and_their_weights_are_those_of_the_fit(runs):
    run = load(runs("tfidf", "architecture=tfidf"))
    before = run.recommend(histories=[["000"]], k=40)
    fresh = pl.DataFrame({"item": ["030"], "text": ["red zeppelin"]})
    after = run.recommend(histories=[["000"]], k=40, items=fresh)
    assert after.filter(pl.col("item") != "030").drop("rank").equals(before.drop("rank"))
    model = run.suggester.model.recommender
    red = model.vectorizer.vocabulary_["red"]
    (own,) = after.filter(item="030")["score"]
    assert own == pytest.approx(model.vectors[0, red]), "'zeppelin' is no word of the fit"


@pytest.mark.parametrize("as_bundle", [False, True])
def test_a_changed_text_is_encoded_anew_and_an_equal_one_is_nothing(
    as_bundle, runs, tmp_path, capsys
):
    model = load(runs("ease", *TEXTS))
    if as_bundle:
        model = open_bundle(write_bundle(model, tmp_path / "bundle"))
    before = model.recommend(histories=[["000"]], k=40)
    capsys.readouterr()
    same = pl.DataFrame({"item": ["004", "005"], "text": ["red mirror. wood", "blue lamp. light"]})
    assert_same_scores([model.recommend(histories=[["000"]], k=40, items=same)], [before])
    assert "note: " not in capsys.readouterr().err
    other = pl.DataFrame({"item": ["004", "030"], "text": ["green chair. wood", "red lamp. light"]})
    after = model.recommend(histories=[["000"]], k=40, items=other, columns=["text"])
    said = re.findall("note: .*", capsys.readouterr().err)
    assert said == ["note: items: 1 new item, 1 with another text, encoded anew"]
    (now,) = after.filter(item="004").iter_rows(named=True)
    assert now["title"] == now["text"] == "green chair. wood"
    assert now["score"] != before.filter(item="004")["score"].item()
    assert model.recommend(histories=[["000"]], k=40).equals(before), "it stays as it was"
    # two tables: the later one has the last word
    twice = model.add_items(other).add_items(same)
    rows = twice.recommend(histories=[["000"]], k=40)
    assert rows.filter(item="004")["title"].item() == "red mirror. wood"
    assert len(rows) == 30


def test_new_items_are_rows_as_all_others(runs, tmp_path, capsys):
    folder = runs("ease", *TEXTS)
    more = {**MORE, "available_from": ["", "2031-01-01"], "price": ["7", "9"]}
    pl.DataFrame(more).write_csv(tmp_path / "more.csv")
    run = load(folder)
    every = run.recommend(users=["u3"], k=40, items=tmp_path / "more.csv", exclude_seen=False)
    assert set(every["item"]) - {f"0{n:02d}" for n in range(30)} == {"030"}
    later = run.add_items(tmp_path / "more.csv").recommend
    then = later(users=["u3"], k=40, at="2031-02-01", where="price > 8", columns=["kind", "price"])
    assert then.drop("rank", "query", "score").rows() == [("031", "blue shelf. wood", "wood", "9")]
    assert later(histories=[["030"]], k=3)["score"].is_finite().all()
    why = run.add_items(tmp_path / "more.csv").explain("030", history=["000", "007"])
    assert why.title == "red lamp. light"
    asked = ["history=000,007", "item=030", f"items={tmp_path / 'more.csv'}"]
    assert explain([f"run={folder}", *asked]) == 0
    assert "red lamp. light" in capsys.readouterr().out
    words = [f"run={folder}", "user=u3", "k=40", "where=item in ('030', '001')"]
    assert recommend([*words, f"items={tmp_path / 'more.csv'}"]) == 0
    printed = capsys.readouterr()
    assert "red lamp. light" in printed.out
    assert f"note: {tmp_path / 'more.csv'}: 2 new items" in printed.err
    bundle = write_bundle(load(folder), tmp_path / "bundle")
    asked = [f"folder={bundle}", *words[1:], f"items={tmp_path / 'more.csv'}"]
    assert recommend(asked) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        line.split()[2] for line in printed.out.splitlines()
    ]


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        ({"id": ["a"]}, "has no column 'item'"),
        ({"item": ["a"], "name": ["red"]}, r"no column 'kind', of which the run's texts are made"),
        ({"item": ["a", "a"], "text": ["red", "red"]}, "the id 'a' appears again in row 2"),
        ({"item": ["a", ""], "text": ["red", "red"]}, "row 2 has no usable value in column 'item'"),
        ({"item": ["a"], "text": [" "]}, "^items: 'a' has an empty text"),
        ({"item": ["a"], "text": ["red"], "available_from": ["soon"]}, "soon"),
        (
            {
                "item": ["a"],
                "text": ["red"],
                "available_from": ["2024"],
                "available_until": ["2023"],
            },
            "available until",
        ),
    ],
)
def test_a_table_that_cannot_be_used_raises_an_error(fresh, said, runs):
    with pytest.raises(DataError, match=said):
        load(runs("ease", *TEXTS)).recommend(users=["u3"], items=pl.DataFrame(fresh))


IS_STRING = "which is String in the catalog; mend it, or leave it out"


@pytest.mark.parametrize(
    ("fresh", "said"),
    [
        ({"text": [["red", "lamp"]]}, "'a' in row 1 has '['red', 'lamp']' in column 'text', "),
        ({"text": [b"red\xff"]}, "has 'b'red\\xff'' in column 'text', "),
        ({"text": [{"de": "rot"}]}, "has '{'de': 'rot'}' in column 'text', "),
        ({"text": pl.Series([{1}], dtype=pl.Object)}, "has '{1}' in column 'text', "),
        ({"text": pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2))}, "has '[1, 2]' in column 't"),
        ({"name": [{"de": 1}], "kind": ["b"]}, "has '{'de': 1}' in column 'name', "),
        ({"name": [["red"]], "kind": ["b"]}, "has '['red']' in column 'name', "),
    ],
)
def test_what_is_no_text_is_shown_as_it_was_given(fresh, said, runs):
    with pytest.raises(DataError) as caught:
        load(runs("ease", *TEXTS)).add_items(pl.DataFrame({"item": ["a"], **fresh})).recommend(
            users=["u3"]
        )
    assert said in str(caught.value)
    assert str(caught.value).endswith(f"{IS_STRING}.")


@pytest.mark.parametrize(
    "fresh",
    [{"text": [float("nan")]}, {"text": [None]}, {"name": [float("nan")], "kind": [float("nan")]}],
)
def test_no_number_is_no_text(fresh, runs):
    with pytest.raises(DataError, match=r"^items: 'a' (in row 1 )?has an empty text; give"):
        load(runs("ease", *TEXTS)).recommend(
            users=["u3"], items=pl.DataFrame({"item": ["a"], **fresh})
        )


def test_a_file_without_rows_is_said_to_have_none(runs, tmp_path, capsys):
    words = [f"run={runs('ease', *TEXTS)}", "user=u3"]
    (tmp_path / "head.csv").write_text("item,name,kind\n")
    assert recommend(words) == 0
    plain = capsys.readouterr().out
    assert recommend([*words, f"items={tmp_path / 'head.csv'}"]) == 0
    printed = capsys.readouterr()
    assert printed.out == plain
    assert re.findall("note: .*", printed.err) == [f"note: {tmp_path}/head.csv: no new items"]
    for name in ("none.csv", "none.jsonl", "none.parquet"):
        (tmp_path / name).touch()
        assert recommend([*words, f"items={tmp_path / name}"]) == 2
        assert f"{name} is empty; give a table with a column 'item'" in capsys.readouterr().err
    (tmp_path / "list.jsonl").write_text('{"item": "x", "text": ["a", "b"]}\n')
    assert recommend([*words, f"items={tmp_path / 'list.jsonl'}"]) == 2
    assert "has '['a', 'b']' in column 'text'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"k": 2.5}, "k is '2.5'; give a whole number from 1"),
        ({"k": True}, "k is 'True'; give a whole number"),
        ({"candidates": 1.5}, "candidates is '1.5'; give a whole number from 1"),
        ({"retriever": "runs/a"}, r"retriever is the path 'runs/a'; give a run, as in recsys.load"),
        ({"retriever": 5}, "retriever is of type int; give a run"),
        ({"items": {"item": ["x"]}}, "items is of type dict; give a frame of polars, or a file"),
        ({"diversity": True}, "diversity is True; give a number from 0"),
        ({"diversity": "0.5"}, "diversity is '0.5'; give a number from 0"),
        ({"exclude_seen": None}, "exclude_seen is None; set it to True or False"),
        ({"because": "yes"}, "because is 'yes'; set it to True, False or None"),
        ({"users": 5}, r"users is 5; give a list, as in \[5\]"),
    ],
)
def test_a_value_of_another_kind_raises_an_error(asked, said, runs):
    run = load(runs("ease", *TEXTS))
    with pytest.raises(ConfigError, match=said):
        run.recommend(**{"users": ["u3"], **asked})
    shared = asked.keys() - {"items", "because", "users"}
    if shared:
        with pytest.raises(ConfigError, match=said):
            run.write_lists("lists.csv", **asked)


def test_numbers_of_numpy_are_numbers(runs):
    run = load(runs("ease", *TEXTS))
    own = run.recommend(users=["u3"], k=np.int64(3), diversity=np.float32(0.5))
    assert own.equals(run.recommend(users=["u3"], k=3, diversity=0.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "is None; give a text"), (5, "is 5; give a text"), ("a\ud800", "character at place 2")],
)
def test_what_is_sought_is_a_text(text, said, runs):
    run = load(runs("towers", "tuning=lora", "architecture.history=mean", *MOVED))
    for ask in (run.encode, lambda texts: run.recommend(texts=texts)):
        with pytest.raises(ConfigError, match=said):
            ask(["red", text])


def test_a_missing_file_raises_an_error(runs, tmp_path, capsys):
    asked = [f"run={runs('ease', *TEXTS)}", "user=u3", f"items={tmp_path / 'no.csv'}"]
    assert recommend(asked) == 2
    assert "no.csv does not exist" in capsys.readouterr().err


PLAIN = {
    "plain": ["architecture=ease"],
    "knn": ["architecture=item_knn"],
    "popularity": ["architecture=popularity"],
    "sasrec": ["architecture.item=id", "architecture.history=causal", "tuning=frozen", *MOVED],
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_reads_no_texts_says_that_it_cannot_score_new_items(name, runs, tmp_path):
    run = load(runs(name, *PLAIN[name]))
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for model in (run, bundle):
        with pytest.raises(ConfigError, match="reads no item texts here, so that it has no score"):
            model.recommend(users=["u3"], items=pl.DataFrame(MORE))


def test_an_ensemble_scores_what_one_of_its_members_does(runs, tmp_path):
    members = [runs("ease", *TEXTS), runs("plain", *PLAIN["plain"]), runs("knn", *PLAIN["knn"])]

    def combine(name, *folders):
        named = f"architecture.members=[{','.join(map(str, folders))}]"
        run = load(runs(name, "architecture=ensemble", named, "architecture.combine=rrf"))
        return run, open_bundle(write_bundle(run, tmp_path / name))

    run, bundle = combine("texts", *members[:2])
    own = [ask(model, items=pl.DataFrame(MORE)) for model in (run, bundle)]
    assert {"030", "031"} < set(own[0][0]["item"])
    assert_same_scores(*own)
    (best,) = run.recommend(
        histories=[["000", "001"]], k=1, items=pl.DataFrame(MORE), where="item >= 30"
    )["item"]
    assert best == "030"
    for model in combine("none", *members[1:]):
        with pytest.raises(ConfigError, match="reads no item texts here"):
            model.recommend(users=["u3"], items=pl.DataFrame(MORE))


def test_a_bundle_encodes_what_is_new_and_nothing_else(runs, tmp_path, monkeypatch):
    from recsys.recommender.base import Recommender

    run = load(runs("towers", "tuning=lora", "architecture.history=mean", *MOVED))
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    encoded = []

    def note(self, **kept):
        encoded.append(kept["rows"].tolist())
        return index(self, **kept)

    index = Recommender.index_catalog
    monkeypatch.setattr(Recommender, "index_catalog", note)
    bundle.recommend(users=["u3"], items=pl.DataFrame(MORE))
    bundle.recommend(users=["u4"], items=pl.DataFrame(MORE))
    assert encoded == [[30, 31]]


def test_tags_of_new_items_are_those_that_training_has_seen(runs, tmp_path):
    run = load(runs("tags", "tuning=frozen", "architecture.categories=[kind]", *MOVED))
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    more = pl.DataFrame(
        {"item": ["030", "031", "000"], "name": ["red lamp"] * 3, "kind": ["wood", "air", "wood"]}
    )
    for model in (run, bundle):
        grown = model.add_items(more)
        grown.recommend(users=["u3"])
        tags = grown.suggester.model.recommender.tags._codes
        before = model.suggester.model.recommender.tags._codes
        wood = before[1].tolist()
        assert tags[1:30].equal(before[1:30])
        assert [tags[row].tolist() for row in (30, 31, 0)] == [wood, [0], wood]


def test_what_proposes_the_items_knows_the_new_ones_too(runs, capsys):
    first, second = load(runs("ease", *TEXTS)), load(runs("tfidf", "architecture=tfidf"))
    asked = {"histories": [["000", "001"]], "k": 3, "where": "item >= 30"}
    found = second.recommend(**asked, items=pl.DataFrame(MORE), retriever=first, candidates=31)
    assert set(found["item"]) == {"030", "031"}
