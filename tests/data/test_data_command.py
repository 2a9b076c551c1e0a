"""python -m recsys.data: what it prints, what it writes, what it refuses."""

import gzip
import os
import shlex
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from recsys.config.compose import compose_data
from recsys.data import prepare
from recsys.data.__main__ import main
from recsys.data.describe import (
    describe_split,
    describe_tables,
    estimate_tokens,
    find_repeats,
    warn_of_ratings,
)
from recsys.data.readers.tabular import read_delimited, read_table
from recsys.data.sources import tables as own_tables
from recsys.data.splits.methods import collect_events, leave_one_out, split_by_time
from recsys.data.splits.split import TEST
from recsys.data.tables import Tables, compute_fingerprint
from recsys.errors import DataError
from tests.data.samples import MAKERS, make

WORDS = {
    "steam": [
        "interactions=steam_reviews.json",
        "items=steam_games.json",
        "user=username",
        "item=product_id",
        "items_id=id",
        "rating=''",
        "review=''",
        "further=[hours]",
        "item_text='{app_name}. {genres}'",
    ],
    "mind": ["positive_from=1"],
}


def words(name, folder):
    module, config = make(name, folder)
    source = module.__name__.rpartition(".")[2]
    if name == "tables":
        place = [f"interactions={config.interactions}", f"items={config.items}"]
    else:
        place = [f"path={config.path}"]
    if name == "dialogues":
        place += [f"items={config.items}"]
    return [f"source={source}", *place, *WORDS.get(name, [])]


@pytest.mark.parametrize("name", list(MAKERS))
def test_every_source_is_described_written_and_read_back_equal(name, tmp_path, capsys):
    asked = words(name, tmp_path)
    out = tmp_path / "deep" / "out"
    assert main([*asked, f"output={out}"]) == 0
    said = capsys.readouterr().out
    for row in ("users", "items", "interactions", "density", "test: cold items", "written:"):
        assert row in said
    full = [
        w if w.startswith("positive_from") else f"source.{w}" if "source=" not in w else w
        for w in asked
    ]
    run = compose_data([f"data.{w}" for w in full])
    first = prepare.load_tables(run.data)
    again = own_tables.load(own_tables.Config(path=str(out)))
    assert compute_fingerprint(again) == compute_fingerprint(first)
    assert again.interactions.equals(first.interactions)
    assert again.items.equals(first.items)
    assert again.users.equals(first.users)
    assert sorted(p.name for p in out.iterdir()) == [
        "data.json",
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def figures(said):
    names = ("  users  ", "  items  ", "  span", "  split", "  train", "  test", "  events")
    return [line for line in said.splitlines() if line.startswith(names)]


def test_reviews_are_not_written_into_texts_so_that_no_target_reads_its_own(tmp_path, capsys):
    asked = words("amazon_2018", tmp_path)
    out = tmp_path / "out"
    assert main([*asked, "user_reviews=2", f"output={out}"]) == 0
    first = capsys.readouterr().out
    told = f"data.source=tables data.source.path={out} data.user_reviews=2"
    assert f"written: {out} (to use it as it is described here: {told})" in first
    assert set(own_tables.load(own_tables.Config(str(out))).users["text"]) == {""}
    assert main(["source=tables", f"path={out}"]) == 0
    second = capsys.readouterr().out
    assert f"{out} was described with data.user_reviews=2; repeat them" in second
    assert figures(first) == figures(second)
    assert len(figures(first)) > 8
    made = [prepare.prepare_data(compose_data(each).data) for each in (full(asked), told.split())]
    texts = [tables.users["text"].to_list() for tables, _ in made]
    assert texts[0] == texts[1]
    assert texts[0][0] == "review 0 0 review 0 5"
    assert main([*asked, f"output={out}"]) == 2
    assert "exists already" in capsys.readouterr().err


def full(asked):
    return [f"data.{'' if 'source=' in w else 'source.'}{w}" for w in asked] + [
        "data.user_reviews=2"
    ]


@pytest.mark.parametrize(
    ("name", "more", "split"),
    [
        ("movielens", ["split=leave_one_out", "positive_from=4"], "leave_one_out"),
        ("movielens", ["split=time", "val_fraction=0.2"], "time"),
        ("goodreads", ["split=leave_one_out", "min_rating=3", "max_users=5"], "leave_one_out"),
        ("mind", [], "given"),
        ("rows", [], "given"),
    ],
)
def test_a_folder_keeps_its_split_and_names_the_keys_to_repeat(name, more, split, tmp_path, capsys):
    out = tmp_path / "a folder"
    assert main([*words(name, tmp_path), *more, f"output={out}"]) == 0
    said = capsys.readouterr().out
    assert f"  {'split':<36}{split}(" in said
    told = shlex.split(said.rpartition("described here: ")[2].strip().removesuffix(")"))
    assert not any("min_rating" in word or "max_users" in word for word in told)
    command = [word.removeprefix("data.").replace("source.path", "path") for word in told]
    assert main(command) == 0
    assert figures(capsys.readouterr().out) == figures(said)
    (out / "data.json").unlink()
    config = own_tables.Config(path=str(out))
    assert config.default_split == ("given" if split == "given" else "time")
    (out / "data.json").write_text('{"split": "no", "keys": {}}')
    with pytest.raises(DataError, match="names the split 'no'"):
        own_tables.load(config)
    (out / "data.json").write_text("[")
    with pytest.raises(DataError, match="is damaged"):
        own_tables.load(config)


def test_a_place_that_takes_no_folder_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "closed").mkdir(mode=0o500)
    places = {"file/out": "which is a file", "file": "exists already"}
    if os.geteuid():  # root may write everywhere
        places["closed/deep/out"] = "takes no files"
    for place, why in places.items():
        asked = ["source=movielens", "path=/nowhere", f"output={tmp_path / place}"]
        assert main(asked) == 2
        said = capsys.readouterr()
        assert why in said.err
        assert said.err.count("\n") == 1
        assert not said.out


def test_filters_and_encoder_are_keys_of_the_command(tmp_path, tiny_bert, capsys):
    asked = words("movielens", tmp_path)
    assert main([*asked, "k_core=2", "repeats=last", f"encoder={tiny_bert}"]) == 0
    said = capsys.readouterr().out
    assert "note: data.k_core:" in said
    assert "note: data.repeats:" in said
    assert "  tokens of an item" in said
    assert "words and signs" not in said
    assert "no target is" not in said
    assert "training, which so depends on what is held out; data.repeats=first leaves" in said
    assert "data.k_core: events are counted before the split" in said
    assert main([*asked, "max_items=8", "repeats=first"]) == 0
    said = capsys.readouterr().out
    assert "at least so many tokens; encoder=MODEL counts tokens" in said
    assert "data.max_items: uses are counted before the split" in said
    assert "no target is an item that the user had before" in said


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["path=x"], "source is missing"),
        (["source=movielense"], "Did you mean 'movielens'?"),
        (["source=movielens", "pth=x"], "pth is not a known key. Did you mean 'path'?"),
        (["source=movielens", "path=/nowhere"], "is no folder; fetch"),
        (["source=movielens", "k_core=many"], "data.k_core"),
        (["source=movielens", "k_core=0"], "set it to 1 or more"),
        (["source=movielens", "word"], "not of the form key=value"),
        (["source=movielens", "--verbose"], "--verbose is not a flag"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(asked, sentence, capsys):
    assert main(asked) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_help_names_sources_and_keys(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for word in ("online_retail", "k_core", "output=FOLDER", "encoder=MODEL"):
        assert word in said


def test_the_command_needs_no_torch(tmp_path):
    asked = words("movielens", tmp_path)
    code = (
        "import sys\n"
        "from recsys.data.__main__ import main\n"
        f"assert main({asked!r}) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def frame(rows, texts, names=("user", "item", "time")):
    events = pl.DataFrame(rows, list(names), orient="row")
    items = pl.DataFrame({"item": list(texts), "text": list(texts.values())})
    users = pl.DataFrame({"user": events["user"].unique(maintain_order=True)})
    return Tables(events, items, users.with_columns(text=pl.lit("")))


def test_figures_are_their_definitions():
    """Two users by hand: a shared time, a repeat, a cold test item, texts of each kind."""
    day = 86_400_000
    rows = [("a", "x", 0), ("a", "y", 0), ("a", "x", day), ("a", "z", 2 * day)]
    rows += [("b", "x", 0), ("b", "y", day), ("b", "y", 3 * day)]
    found = frame(
        rows, {"x": "same &amp; text", "y": "same &amp; text", "z": "新聞 a-b", "08": "w"}
    )
    made = collect_events(found)
    said = describe_tables(found, made, estimate_tokens, 3)
    values = dict(said.rows)
    assert values["users"] == "2 (2 with interactions)"
    assert values["items"] == "4 (3 with interactions)"
    assert values["density"].startswith("62.500%")
    assert values["repeats"].startswith("28.6%")
    assert values["shared times"].startswith("28.6%")
    assert values["span"] == "1970-01-01 to 1970-01-04 (3 days)"
    assert values["same text as another"] == "50.0% of items"
    assert values["events of a user"] == "3 / 3 / 3 / 4 / 4 / 4"
    assert estimate_tokens(found.items["text"]).tolist() == [5, 5, 5, 1]
    for part in ("HTML entities", "begin with 0", "same text", "share their time", "1970-01-01"):
        assert any(part in sentence for sentence in said.warnings)
    split = leave_one_out(found)
    shown = describe_split(split, 4)
    values = dict(shown.rows)
    assert values["test: cold items"] == "50.0% of targets, 1 items"
    assert values["test: had before"] == "50.0% of targets"
    assert values["test: history before a target"] == "2 / 2 / 2 / 3 / 3 / 3"
    assert any("mask_history" in sentence for sentence in shown.warnings)
    assert any("cold and warm" in sentence for sentence in shown.warnings)


def test_the_same_event_twice_is_told_from_a_repeat():
    rows = [
        ("a", "x", 5),
        ("a", "y", 5),
        ("a", "x", 5),
        ("a", "x", 6),
        ("b", "x", 6),
        ("b", "y", 6),
    ]
    found = frame(rows, {"x": "a", "y": "b"})
    said = describe_tables(found, collect_events(found), estimate_tokens, 9)
    assert dict(said.rows)["same user, item and time"] == "16.7% of interactions, 1"
    assert any("1 interactions have user, item and time" in each for each in said.warnings)
    once = frame([rows[n] for n in (0, 1, 3, 4, 5)], {"x": "a", "y": "b"})
    said = describe_tables(once, collect_events(once), estimate_tokens, 9)
    assert dict(said.rows)["same user, item and time"] == "0.0% of interactions, 0"
    assert not any("user, item and time" in each for each in said.warnings)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_events_against_a_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{i}", int(t)) for u, i, t in rng.integers(0, 4, (90, 3))]
    found = frame(rows, {f"i{i}": "x" for i in range(4)})
    (said,) = [
        v
        for k, v in describe_tables(found, collect_events(found), estimate_tokens, 9).rows
        if "same user" in k
    ]
    assert said.endswith(f" {len(rows) - len(set(rows))}")


def test_ratings_that_differ_and_all_count_are_warned_of():
    found = frame([("a", "x", 5), ("a", "y", 6)], {"x": "a", "y": "b"})
    ratings = {
        name: Tables(
            found.interactions.with_columns(rating=pl.Series(each)), found.items, found.users
        )
        for name, each in {"differ": [1.0, 4.0], "same": [4.0, 4.0]}.items()
    }
    assert "from 1 to 4: data.positive_from" in warn_of_ratings(ratings["differ"], None)[0]
    assert not warn_of_ratings(ratings["differ"], 3)
    assert not warn_of_ratings(ratings["same"], None)
    assert not warn_of_ratings(found, None)


@pytest.mark.parametrize("moment", [-62_200_000_000_000, 1_400_000_000_000_000])
def test_moments_outside_of_any_calendar_are_shown(moment):
    """Year -2 and year 46334: a mistake in the data is described, not crashed on."""
    found = frame([("a", "x", moment), ("a", "y", 1_400_000_000_000)], {"x": "a", "y": "b"})
    said = describe_tables(found, collect_events(found), estimate_tokens, 9)
    assert any("are some of them missing, or in another unit?" in each for each in said.warnings)
    assert ("46334-" if moment > 0 else "-002-") in dict(said.rows)["span"]


def test_windows_are_described():
    found = frame([("a", "x", 1), ("a", "y", 5), ("a", "z", 9)], {"x": "a", "y": "b", "z": "c"})
    items = found.items.with_columns(available_until=pl.Series([None, None, 7]))
    found = Tables(found.interactions, items, found.users)
    assert (
        dict(describe_tables(found, collect_events(found), estimate_tokens, 9).rows)[
            "items with a window"
        ][0]
        == "1"
    )
    said = describe_split(leave_one_out(found), 3)
    assert dict(said.rows)["test: outside their window"] == "100.0% of targets"
    assert dict(said.rows)["validation: outside their window"] == "0.0% of targets"
    assert any("1 of the test targets were chosen when" in each for each in said.warnings)


def test_a_reader_that_leaves_ends_nothing(tmp_path):
    given = words("movielens", tmp_path)
    for buffered in ("", "1"):
        out = tmp_path / f"out{buffered}"
        asked = [*given, f"output={out}"]
        code = [sys.executable, "-m", "recsys.data", *asked]
        with subprocess.Popen(
            code,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
        ) as child:
            child.stdout.close()
            assert child.wait() == 0
            assert child.stderr.read() == b""
        assert (out / "interactions.parquet").is_file()


def test_what_a_split_does_to_a_set_is_warned_of():
    """Users of one moment each: by time all test users are new, and ties decide who is last."""
    rows = [(f"u{u}", item, 1_400_000_000_000 + u) for u in range(20) for item in "xyz"]
    found = frame(rows, {"x": "a", "y": "b", "z": "c"})
    by_time = describe_split(split_by_time(found), 3)
    assert any("asks for cold users" in sentence for sentence in by_time.warnings)
    last = describe_split(leave_one_out(found), 3)
    assert any("order in the file decides" in sentence for sentence in last.warnings)
    no_time = Tables(found.interactions.drop("time"), found.items, found.users)
    said = describe_tables(no_time, collect_events(no_time), estimate_tokens, 64)
    assert any("a time split cannot be made" in sentence for sentence in said.warnings)


def test_repeats_against_a_slow_oracle():
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", f"i{i}", int(t)) for u, i, t in rng.integers(0, 8, (200, 3))]
    found = frame(rows, {f"i{i}": "x" for i in range(8)})
    made = collect_events(found)
    seen, want = set(), []
    for user, item in zip(made.compute_user_rows(), made.item, strict=True):
        want.append((user, item) in seen)
        seen.add((user, item))
    assert find_repeats(made, 8).tolist() == want
    at = leave_one_out(found).list_cases(TEST)
    assert len(at)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_streamed_and_whole_files_give_the_same(tmp_path, ends, mark):
    rows = ["id,n,text", '007,1.5,"a, ""b"" é"', "8,,", "9,2,x"]
    raw = (mark + ends.join(rows) + ends).encode()
    (tmp_path / "x.csv").write_bytes(raw)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(raw))
    plain, packed = read_table(tmp_path / "x.csv"), read_table(tmp_path / "x.csv.gz")
    assert plain.equals(packed)
    assert plain.rows() == [("007", "1.5", 'a, "b" é'), ("8", None, None), ("9", "2", "x")]
    (tmp_path / "y.csv").write_bytes(raw.replace(b"8,,", b"8,3,"))
    numbers = read_table(tmp_path / "y.csv", numeric=("n", "none"))
    assert numbers["n"].to_list() == [1.5, 3.0, 2.0]
    kept = read_table(tmp_path / "x.csv", numeric=("n",))
    assert kept.equals(plain)  # a gap: the column stays as it is, for a message to quote
    tabs = (mark + ends.join(["a\t'b\"", "c\td"]) + ends).encode()
    (tmp_path / "x.tsv").write_bytes(tabs)
    assert read_delimited(tmp_path / "x.tsv", "\t", ["p", "q"]).rows() == [
        ("a", "'b\""),
        ("c", "d"),
    ]
