"""A bundle answers as its run does, after the data is gone; a changed file raises an error."""

import json
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError, DataError
from recsys.export.__main__ import main as export
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.testing.shop import make_shop_words, write_encoder, write_shop
from recsys.trained.bundle import plain
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle
from recsys.trained.lookup import ClosedItems
from recsys.trained.run import load
from recsys.trained.where import find_rows_outside
from tests.trained.equal_lists import assert_equal_lists

MOVED = ["optimizer.lr=0.05", "trainer.max_steps=4", "checkpoint.pick=last"]
KINDS = {
    "mean": ["tuning=lora", "architecture.history=mean", *MOVED],
    "recency": ["tuning=full", "architecture.history=recency", "architecture.heads=true", *MOVED],
    "prior": ["tuning=frozen", "architecture.popularity=true", *MOVED],
    "causal": ["tuning=frozen", "architecture.history=causal", *MOVED],
    "separate": ["tuning=lora", "architecture.towers=separate", *MOVED],
    "adapter": ["tuning=adapter", *MOVED],
    "prefix": ["tuning=prefix", *MOVED],
    "user_text": ["tuning=lora", "architecture.user=text", *MOVED],
    "text_and_history": ["tuning=lora", "architecture.user=text+history", *MOVED],
    "ids": ["tuning=lora", "architecture.item=text+id", *MOVED],
    "late": ["architecture=late_interaction", "objective=bce", "tuning=lora", *MOVED],
    "late_text": [
        *("architecture=late_interaction", "architecture.user=text", "objective=bce"),
        *("tuning=lora", *MOVED),
    ],
    "cross": [
        "architecture=cross_encoder",
        "objective=bce",
        "evaluation.protocol=candidates",
        "evaluation.candidates=9",
        *MOVED,
    ],
    "ease": ["architecture=ease"],
    "ease_text": ["architecture=ease", "architecture.vectors=encoder", "architecture.rho=30"],
    "item_knn": ["architecture=item_knn"],
    "item_knn_text": ["architecture=item_knn", "architecture.vectors=encoder"],
    "popularity": ["architecture=popularity"],
    "query_knn": ["architecture=query_knn"],
    "query_knn_text": ["architecture=query_knn", "architecture.vectors=encoder"],
    "tfidf": ["architecture=tfidf"],
    "bm25": ["architecture=bm25"],
    "copying": ["architecture=copying"],
}
RARE = (
    "query_knn_text",
    "text_and_history",
    "late_text",
    "prior",
    "separate",
    "adapter",
    "prefix",
    "ids",
    "item_knn_text",
)
TIES = ("ease", "item_knn", "popularity", "query_knn", "query_knn_text", "tfidf", "bm25", "copying")
"""They leave many scores equal, to the last digit."""
READERS = KINDS.keys() - {"ease", "item_knn", "popularity", "copying"}
HISTORIES = [["000", "007"], ["012"], ["003", "004", "003"], [f"0{i:02d}" for i in range(30)]]


def assert_same(bundle, run):
    """The same items with the same scores, whatever the order of equals."""
    assert bundle.columns == run.columns
    assert bundle.drop("item", "score", "title").equals(run.drop("item", "score", "title"))
    assert (bundle["score"] - run["score"]).abs().max() <= 1e-4
    for query in run["query"].unique():
        own, other = bundle.filter(query=query), run.filter(query=query)
        # of equal scores at the end of a list, either may be the one that is in it
        last = other["score"].min() + 1e-4
        for key in ("item", "title"):
            first = own.filter(pl.col("score") > last)[key].to_list()
            assert sorted(first) == sorted(other.filter(pl.col("score") > last)[key].to_list())
        both = own.join(other, on="item")
        assert both.is_empty() or (both["score"] - both["score_right"]).abs().max() <= 1e-4


def answer(model, reads):
    answers = [
        model.recommend(users=["u3", "u17"], k=6),
        model.recommend(histories=HISTORIES, k=30),
    ]
    return [*answers, model.recommend(texts=["red lamp", "brown chair"], k=5)] if reads else answers


def assert_lists(model, place, ties):
    """The lists of many are those of each, whether the model reads arrays or many queries."""
    of = {"k": 6, "where": "not name contains 'lamp'", "columns": ["name"]}
    written = pl.read_parquet(model.write_lists(place / "all.parquet", **of))
    each = model.recommend(users=[f"u{n}" for n in range(40)], **of)
    assert_equal_lists(written, each, ties)
    people = pl.DataFrame({"user": ["ann", "bob", "cid", "dan"], "history": HISTORIES})
    people.write_parquet(place / "people.parquet")
    names = {",".join(had): name for had, name in zip(HISTORIES, people["user"], strict=True)}
    of = {"k": 5, "exclude_seen": False}
    many = model.write_lists(place / "many.parquet", users=place / "people.parquet", **of)
    each = model.recommend(histories=HISTORIES, **of)
    each = each.with_columns(pl.col("query").replace_strict(names))
    assert_equal_lists(pl.read_parquet(many), each, ties)
    for path in place.glob("*.parquet"):
        path.unlink()


@pytest.fixture
def gone(tmp_path, monkeypatch):
    """Words of runs on a shop and an encoder that a test may remove."""
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    for name in ("shop", "encoder"):
        (tmp_path / name).mkdir()
    words = make_shop_words(write_shop(tmp_path / "shop"), write_encoder(tmp_path / "encoder"))

    def train(*more, name="run"):
        where = tmp_path / name
        assert fit([*words, f"output={where}", *more]) == 0
        (folder,) = where.iterdir()
        return folder

    return train


def move_away(tmp_path):
    """The data, the encoder, the runs and the cache are somewhere else."""
    (tmp_path / "gone").mkdir()
    for path in list(tmp_path.iterdir()):
        if path.name not in ("gone", "bundle"):
            path.rename(tmp_path / "gone" / path.name)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] if k in RARE else []) for k in KINDS]
)
def test_a_bundle_answers_as_its_run_once_all_else_is_gone(kind, gone, tmp_path):
    run = load(gone(*KINDS[kind]))
    want = answer(run, kind in READERS)
    assert_lists(run, tmp_path, kind in TIES)
    write_bundle(run, tmp_path / "bundle")
    move_away(tmp_path)
    bundle = open_bundle(tmp_path / "bundle")
    for rows, expected in zip(answer(bundle, kind in READERS), want, strict=True):
        assert_same(rows, expected)
    assert_lists(bundle, tmp_path, kind in TIES)


@pytest.mark.parametrize("combine", ["rrf", "weighted"])
def test_an_ensemble_brings_its_members(combine, gone, tmp_path):
    members = [
        gone("architecture=ease", name="ease"),
        gone("tuning=lora", *MOVED, name="towers"),
        gone("architecture=ease", "architecture.vectors=encoder", name="texts"),
    ]
    named = f"architecture.members=[{','.join(map(str, members))}]"
    run = load(gone("architecture=ensemble", named, f"architecture.combine={combine}"))
    want = answer(run, False)
    assert_lists(run, tmp_path, False)
    write_bundle(run, tmp_path / "bundle")
    move_away(tmp_path)
    for bundle, expected in zip(answer(open_bundle(tmp_path / "bundle"), False), want, strict=True):
        assert_same(bundle, expected)


def test_a_changed_missing_or_added_file_raises_one_clear_error(gone, tmp_path):
    folder = write_bundle(load(gone("architecture=ease")), tmp_path / "bundle")
    names = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in names} <= {".json", ".yaml", ".npy", ".parquet"}
    assert b"interactions" not in b"".join(path.name.encode() for path in names)

    def ask():
        return open_bundle(folder).recommend(users=["u3"])

    ask()
    for path in names:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DataError, match=rf"the bundle cannot be used, .*{path.name}"):
            ask()
        path.unlink()
        with pytest.raises(DataError, match=rf"{path.name} is missing"):
            ask()
        path.write_bytes(content)
    (folder / "more.py").write_text("print()")
    with pytest.raises(DataError, match=r"more\.py is no part of it"):
        ask()
    (folder / "more.py").unlink()
    text = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**text, "format": 99}))
    with pytest.raises(DataError, match="it has format 99, and this version reads 1"):
        ask()


def test_without_users_nobody_can_be_asked_for(gone, tmp_path):
    run = load(gone("architecture=ease"))
    folder = write_bundle(run, tmp_path / "bundle", users=False)
    assert not (folder / "users.parquet").exists()
    assert not (folder / "history").exists()
    bundle = open_bundle(folder)
    assert_same(bundle.recommend(histories=HISTORIES), run.recommend(histories=HISTORIES))
    with pytest.raises(DataError, match="No user has the id 'u3'"):
        bundle.recommend(users=["u3"])


def test_a_bundle_takes_the_place_of_an_older_one_and_of_nothing_else(gone, tmp_path):
    run = load(gone("architecture=popularity"))
    folder = write_bundle(run, tmp_path / "bundle")
    before = (folder / "bundle.json").read_text()
    write_bundle(run, folder, users=False)
    assert (folder / "bundle.json").read_text() != before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else"):
        write_bundle(run, tmp_path / "own")
    assert (tmp_path / "own" / "letter.txt").read_text() == "mine"


def test_the_commands_write_and_read_a_bundle(gone, tmp_path, capsys):
    folder, bundle = gone("architecture=ease"), tmp_path / "bundle"
    words = [f"run={folder}", f"to={bundle}", "format=bundle"]
    assert export([*words, "users=false"]) == 0
    assert recommend([f"folder={bundle}", "user=u3"]) == 2
    assert export(words) == 0, "it takes the place of the older one"
    assert "each with its checksum" in capsys.readouterr().out
    assert export([*words, "users=no"]) == 2
    assert export([*words[:2], "format=card", "users=false"]) == 2
    assert "users=false goes with format=bundle" in capsys.readouterr().err
    assert export([*words[:2], "format=card"]) == 2
    assert "exists already" in capsys.readouterr().err
    capsys.readouterr()
    for asked in ("user=u3", "history=000,007"):
        assert recommend([f"run={folder}", asked, "k=4"]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert recommend([f"folder={bundle}", asked, "k=4"]) == 0
        assert_same(parse(capsys.readouterr().out.splitlines()), parse(printed))
    assert recommend([f"folder={folder}", "user=u3"]) == 2
    assert "is no bundle: bundle.json is missing" in capsys.readouterr().err


def test_a_bundle_names_no_folder_of_the_machine_that_made_it(gone, tmp_path):
    folder = write_bundle(load(gone("tuning=lora", *MOVED)), tmp_path / "bundle")
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "interactions: events.csv" in (folder / "config.yaml").read_text()
    assert len(open_bundle(folder).recommend(texts=["red lamp"], k=3)) == 3


def test_a_bundle_of_late_interaction_opens_without_encoding_its_items(gone, tmp_path, monkeypatch):
    run = load(gone(*KINDS["late"]))
    want = answer(run, True)
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    encoded, inner = [], Encoder.compute_states
    monkeypatch.setattr(
        Encoder,
        "compute_states",
        lambda self, tokens: encoded.append(len(tokens.sizes)) or inner(self, tokens),
    )
    for own, expected in zip(answer(bundle, True), want, strict=True):
        assert_same(own, expected)
    assert encoded == [1, 1, 1], "the first try of an encoder, and the two texts"


@pytest.mark.parametrize("kind", ["recency", "ease_text", "item_knn", "popularity"])
def test_the_second_question_is_answered_without_torch(kind, gone, tmp_path, capsys):
    folder = gone(*KINDS[kind])
    for asked in ("user=u3", "history=000,007"):
        capsys.readouterr()
        assert recommend([f"run={folder}", asked, "k=4"]) == 0
        first = capsys.readouterr().out
        code = (
            "import sys; from recsys.recommend.__main__ import main; "
            "print(main(sys.argv[1:]), 'torch' in sys.modules)"
        )
        words = [sys.executable, "-c", code, f"run={folder}", asked, "k=4"]
        again = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert again.splitlines()[-1] == "0 False"
        assert_same(parse(again.splitlines()[:-1]), parse(first.splitlines()))


HEAVY = ["lightning", "peft", "torchmetrics", "datasets", "pandas", "sklearn", "wandb", "optuna"]


@pytest.mark.parametrize(
    "kind", ["recency", *(pytest.param(k, marks=pytest.mark.slow) for k in ("user_text", "prior"))]
)
def test_the_second_text_is_answered_with_the_encoder_alone(kind, gone, tmp_path, capsys):
    folder = gone(*KINDS[kind])
    bundle = write_bundle(load(folder), tmp_path / "bundle")
    capsys.readouterr()
    asked = [f"run={folder}", "text=red lamp", "k=4"]
    assert recommend(asked) == 0
    first = capsys.readouterr().out
    assert (folder / "answers" / "encoder" / "model.safetensors").is_file()
    code = (
        "import sys; from recsys.recommend.__main__ import main; code = main(sys.argv[1:]); "
        f"print(code, [name for name in {HEAVY} if name in sys.modules])"
    )
    for words in (asked, [f"folder={bundle}", *asked[1:]]):
        again = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert again.stdout.splitlines()[-1] == "0 []"
        assert "encoder:" not in again.stderr
        assert_same(parse(again.stdout.splitlines()[:-1]), parse(first.splitlines()))
    # Users are answered by what was kept with the text, or by the run where that cannot be.
    assert recommend([f"run={folder}", "user=u3", "k=4"]) == 0
    own = parse(capsys.readouterr().out.splitlines())
    assert own["item"].to_list() == load(folder).recommend(users=["u3"], k=4)["item"].to_list()


def test_a_text_of_a_run_that_cannot_be_folded_is_answered_by_its_model(gone, capsys):
    folder = gone(*KINDS["adapter"])
    printed = []
    for _ in range(2):
        capsys.readouterr()
        assert recommend([f"run={folder}", "text=red lamp", "k=4"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert sorted(folder.glob("*answers*")) == []


def parse(lines):
    """What the command printed, as a frame."""
    rows = [line.split(maxsplit=3) for line in lines]
    names = ("rank", "score", "item", "title")
    frame = pl.DataFrame(rows, schema=list(names), orient="row")
    return frame.with_columns(pl.col("score").cast(float), query=pl.lit("asked"))


def test_what_a_run_has_kept_counts_while_its_data_is_as_it_was(gone, tmp_path, capsys):
    folder = gone("architecture=popularity")
    assert recommend([f"run={folder}", "user=u3", "k=4"]) == 0
    assert (folder / "answers" / "bundle.json").is_file()
    assert recommend([f"run={folder}", "user=nobody"]) == 2
    assert "No user has the id 'nobody'" in capsys.readouterr().err
    with (tmp_path / "shop" / "events.csv").open("a") as events:
        events.write("u3,000,1600009999,5\n")
    assert recommend([f"run={folder}", "user=u3", "k=4"]) == 2
    assert "the data has changed since the run" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ease", "tfidf"])
def test_items_are_chosen_by_their_columns(kind, gone, tmp_path, capsys):
    folder = gone(*KINDS[kind])
    run = load(folder)
    bundle = open_bundle(write_bundle(run, tmp_path / "bundle"))
    for model in (run, bundle):
        red = model.recommend(
            users=["u3"], k=30, where="name contains 'red' and item != '002'", columns=["name"]
        )
        assert red.columns[-1] == "name"
        assert set(red["item"]) <= {"000", "001", "003", "004"}
        assert red["name"].to_list() == red["title"].to_list()
        every = model.recommend(users=["u3"], k=40, exclude_seen=False)
        assert len(every) == 30
        either = "item in ('000', \"001\") or (item >= 29 and not name contains 'lamp')"
        own = model.recommend(users=["u3"], k=40, where=either, exclude_seen=False)
        assert set(own["item"]) == {"000", "001", "029"}
        with pytest.raises(ConfigError, match="no further column 'price'"):
            model.recommend(users=["u3"], columns=["price"])
    assert recommend([f"run={folder}", "user=u3", "where=name = 'red lamp'", "k=4"]) == 0
    assert recommend([f"run={folder}", "user=u3", "where=nam = 'x'"]) == 2
    assert "the items have no column 'nam'" in capsys.readouterr().err


def test_many_histories_at_once_are_answered_as_one_by_one(gone, tmp_path, monkeypatch):
    bundle = open_bundle(write_bundle(load(gone(*KINDS["prior"])), tmp_path / "bundle"))
    monkeypatch.setattr(plain, "_MOST_SCORES", 90)  # three queries of thirty items at a time
    asked = [[f"0{n:02d}" for n in range(start, start + 3)] for start in range(8)]
    together = bundle.recommend(histories=[*asked, []], k=30)
    alone = pl.concat([bundle.recommend(histories=[each], k=30) for each in [*asked, []]])
    assert_frame_equal(together, alone, rel_tol=1e-6)


def test_items_with_windows_are_closed_beside_those_not_asked_for():
    items = pl.DataFrame({"item": ["a", "b", "c"], "available_from": [None, 5, None]})
    closed = ClosedItems(items)
    assert sorted(closed.find("now", 4)) == [1]
    assert sorted(closed.find("now", 5)) == []
    for _ in range(2):  # the second time the expression is known
        assert set(closed.find("now", 4, "item != 'a'")) == {0, 1}
        assert set(closed.find("now", 5, "item != 'a'")) == {0}
    for number in range(40):
        assert len(closed.find("now", 5, f"item = '{number}'")) == 3
    assert len(closed._outside) == 16


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("", "it is empty"),
        ("name", "a comparison is missing"),
        ("name = red", "'red' is to be quoted"),
        ("name ~ 'red'", "'~ 'red'' is not understood"),
        ("name like 'red'", "'like' is no comparison"),
        ("(name = 'red'", r"'\)' is missing"),
        ("name = 'red' 'blue'", "stands where nothing is expected"),
        ("__import__('os')", "no column '__import__'"),
        ("(" * 300 + "name", "it is too long"),
        ("tags = 'red'", "column 'tags' holds lists; write tags contains 'VALUE'"),
        ("pairs contains 'red'", "which cannot be compared"),
    ],
)
def test_what_is_no_expression_raises_an_error(where, said):
    items = pl.DataFrame({"item": ["a"], "name": ["red"], "tags": [["red"]], "pairs": [[["a"]]]})
    with pytest.raises(ConfigError, match=said):
        find_rows_outside(items, where)
