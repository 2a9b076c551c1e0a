"""The original files of further data sets, made up and real, and the filters."""

import dataclasses
import os
from pathlib import Path

import polars as pl
import pytest

from recsys.config.compose import compose, compose_data
from recsys.data import filters, prepare
from recsys.data.readers.jsonl import make_number_column, make_text_column, read_records
from recsys.data.sources import (
    amazon,
    goodreads,
    jsonl,
    mind,
    movielens,
    movietweetings,
    online_retail,
    redial,
    rows,
    tables,
)
from recsys.data.splits import methods
from recsys.data.tables import Tables, compute_fingerprint
from recsys.errors import ConfigError, DataError
from recsys.metrics.beyond_accuracy import parse_categories
from tests.data.samples import DAY, EACH, ITEMS, MAKERS, USERS, events, make

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("RECSYS_TEST_DATA", ROOT.parent / "shared" / "data"))


def real(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder {name} in RECSYS_TEST_DATA or ../shared/data")
    return str(DATA / name)


def counts(found):
    return found.users.height, found.items.height, found.interactions.height


@pytest.mark.parametrize("name", [n for n in MAKERS if n not in ("mind", "redial", "dialogues")])
def test_every_layout_gives_the_same_events(name, tmp_path):
    module, config = make(name, tmp_path)
    found = module.load(config)
    assert counts(found) == (USERS, ITEMS, USERS * EACH)
    digits = [
        (int("".join(c for c in user if c.isdigit())), int(item[-1]))
        for user, item in found.interactions.select("user", "item").rows()
    ]
    assert digits == [(u, i) for u, i, _ in events()]
    if "time" in found.interactions.columns:
        order = found.interactions["time"].arg_sort().to_list()
        moments = [d for _, _, d in events()]
        assert name in ("yelp", "steam") or [moments[n] for n in order] == sorted(moments)
    assert config.default_split in ("time", "leave_one_out") or name == "rows"
    assert all(f.metadata["help"] for f in dataclasses.fields(config))


@pytest.mark.parametrize("year", [2014, 2018, 2023])
def test_amazon_editions_agree(year, tmp_path):
    module, config = make(f"amazon_{year}", tmp_path)
    found = module.load(config)
    assert found.items["text"][0].rstrip(".") == "Thing 0 & more. Acme. A, B. Good, cheap"
    first = found.interactions.row(0, named=True)
    assert first == {
        "user": "A0",
        "item": "0000",
        "time": 1_400_000_000_000,
        "rating": 4.0,
        "review": "review 0 0",
    }


@pytest.mark.parametrize("name", ["movielens", "movietweetings"])
def test_genres_are_categories_and_not_their_combinations(name, tmp_path):
    module, config = make(name, tmp_path)
    items = module.load(config).items
    assert {kind for each in parse_categories(items["genres"]) for kind in each} == {"Drama", "War"}
    assert items["text"][1].endswith("(2001). Drama, War")


@pytest.mark.parametrize(
    ("asked", "kept"),
    [([], False), (["user_reviews=2"], True), (["source.keep_reviews=true"], True)],
)
def test_reviews_are_kept_where_something_reads_them(asked, kept, tmp_path):
    """They are most of the memory of a large set."""
    config = make("amazon_2018", tmp_path)[1]
    words = ["data.source=amazon", f"data.source.path={config.path}"]
    run = compose_data([*words, *(f"data.{word}" for word in asked)])
    assert ("review" in prepare.load_tables(run.data).interactions.columns) == kept
    assert compose([*words, *(f"data.{word}" for word in asked)]).data.source == run.data.source


def test_products_without_a_title_go_with_their_reviews_and_are_counted(tmp_path):
    module, config = make("amazon_2018", tmp_path)
    path = tmp_path / "amazon_2018" / "meta_Things.json.gz"
    path.unlink()
    plain = path.with_suffix("")
    plain.write_text(
        '{"asin": "0000", "title": "A"}\n{"asin": "0000", "title": "B"}\n'
        '{"asin": "0001", "title": "var aPageStart = (new Date()).getTime()"}\n'
    )
    found = module.load(config)
    assert found.items.select("item", "title").rows() == [("0000", "A")]
    left = sum(i == 0 for _, i, _ in events())
    assert found.interactions.height == left
    said = " ".join(found.notes)
    assert "1 item is described twice" in said
    assert "1 item has no text" in said
    assert f"{USERS * EACH - left} of {USERS * EACH} interactions" in said


def test_a_shop_keeps_purchases_only_and_counts_the_rest(tmp_path):
    module, config = make("online_retail", tmp_path)
    found = module.load(config)
    reasons = ("without a customer", "cancelled", "quantity of zero", "no product")
    for reason, n in zip(reasons, (1, 2, 1, 1), strict=True):
        assert any(f" {n} lines" in note and reason in note for note in found.notes)
    assert found.items.row(0) == ("10000", "THING, 0", "THING, 0")
    assert found.users["text"].to_list() == ["France"] * USERS
    assert found.interactions.columns == ["user", "item", "time", "basket", "quantity", "price"]
    with_all = module.load(dataclasses.replace(config, codes="all"))
    assert "POST" in with_all.items["item"].to_list()


def test_the_dates_of_a_spreadsheet_are_read(tmp_path):
    head = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    (tmp_path / "x.csv").write_text(head + "1,10001,A,1,12/1/2010 8:26,2.5,17850,UK\n")
    found = online_retail.load(online_retail.Config(str(tmp_path)))
    assert found.interactions["time"].to_list() == [1291191960000]
    assert found.users["user"].to_list() == ["17850"]


def behaviors(folder, rows):
    folder.mkdir(parents=True)
    (folder / "news.tsv").write_text(
        "".join(f"{n}\tc\ts\tTitle {n}\t\tu\t[]\t[]\n" for n in "ABCDEFG")
    )
    (folder / "behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


def test_histories_become_events_before_what_tells_of_them(tmp_path):
    """By hand: a repeated click, one that a later part adds, one that an impression tells."""
    behaviors(
        tmp_path / "MINDsmall_train",
        [
            ("2", "u", "11/12/2019 1:00:00 PM", "A B A", "D-1 E-0"),
            ("1", "u", "11/11/2019 1:00:00 PM", "A B A", "C-1 E-0 G-0"),
        ],
    )
    behaviors(
        tmp_path / "MINDsmall_dev",
        [("1", "u", "11/15/2019 1:00:00 AM", "A B A D F", "E-0 G-1 X-0")],
    )
    (tmp_path / "MINDlarge_test").mkdir()
    behaviors(tmp_path / "y" / "MINDlarge_test", [("9", "u", "11/16/2019 1:00:00 AM", "A", "E G")])
    (tmp_path / "MINDlarge_test").rmdir()
    (tmp_path / "y" / "MINDlarge_test").rename(tmp_path / "MINDlarge_test")
    found = mind.load(mind.Config(str(tmp_path), held_out=0.5))
    made = methods.make_split(found, "given", positive_from=1)
    rows = found.interactions[made.row].select("item", "rating", "impression", "split").rows()
    assert rows == [
        ("A", 1, None, "train"),
        ("B", 1, None, "train"),
        ("A", 1, None, "train"),
        ("C", 1, "train-1", "train"),
        ("E", 0, "train-1", "train"),
        ("G", 0, "train-1", "train"),
        ("D", 1, "train-2", "val"),
        ("E", 0, "train-2", "val"),
        ("F", 1, None, "val"),
        ("E", 0, "val-1", "test"),
        ("G", 1, "val-1", "test"),
    ]
    time = found.interactions[made.row]["time"].to_list()
    assert time[:4] == [time[3] - 3, time[3] - 2, time[3] - 1, time[3]]
    said = " ".join(found.notes)
    assert "1 impressions have no labels" in said
    assert "1 of 8 candidates" in said
    assert "dev is the test part" in said


def test_clicks_must_be_told_from_what_was_shown(tmp_path):
    config = make("mind", tmp_path)[1]
    run = compose_data(["data.source=mind", f"data.source.path={config.path}"])
    with pytest.raises(ConfigError, match=r"set data\.positive_from=1"):
        prepare.prepare_data(run.data)
    run.data.positive_from = 1
    made = prepare.prepare_data(run.data)[1]
    assert made.name == "given(split, positive_from=1)"
    assert any("dev is the test part" in note for note in made.notes)


def test_real_mind_sample():
    """Counts of the sample's own README, which an own script made."""
    folder = real("mind-sample")
    config = mind.Config(
        folder,
        behaviors="behaviors_train5000.tsv",
        news="news_en_2000.tsv",
        titles=f"{folder}/xMINDsmall_dev_cmn.zip",
        need_history=True,
    )
    found = mind.load(config)
    shown = found.interactions.filter(pl.col("impression").is_not_null())
    assert shown["impression"].n_unique() == 2445
    assert shown["user"].n_unique() == 2355
    assert int(shown["rating"].sum()) == 3386
    assert shown.height - int(shown["rating"].sum()) == 70998
    assert methods.make_split(found, "given", positive_from=1).list_cases(2).size > 0


def test_real_movietweetings():
    found = movietweetings.load(movietweetings.Config(real("movietweetings")))
    assert counts(found) == (16554, 10506, 100000)
    assert len({kind for each in parse_categories(found.items["genres"]) for kind in each}) == 25
    assert counts(filters.filter_tables(found, k_core=5)) == (4333, 2414, 68055)


def test_real_online_retail():
    config = online_retail.Config(real("online-retail"), codes="all")
    found = online_retail.load(config)
    once = filters.filter_tables(found, repeats="first")
    assert (once.users.height, once.items.height) == (4339, 3665)
    assert once.interactions.height == 266802
    assert counts(filters.filter_tables(once, k_core=5)) == (4078, 3149, 265082)


def test_real_amazon():
    found = amazon.load(amazon.Config(real("amazon-giftcards")))
    assert found.interactions.height == 2972
    assert (found.interactions["user"].n_unique(), found.interactions["item"].n_unique()) == (
        458,
        148,
    )
    found = amazon.load(amazon.Config(real("amazon-instruments-reviews")))
    assert found.interactions.height == 5684
    assert found.items.height == 485


def test_real_goodreads():
    found = goodreads.load(goodreads.Config(real("goodreads")))
    assert (found.users.height, found.interactions.height) == (23089, 180240)
    assert found.interactions["item"].n_unique() == 15441


@pytest.mark.parametrize(
    "module",
    [mind, amazon, movietweetings, goodreads, jsonl, movielens, online_retail, rows, redial],
)
def test_a_missing_folder_says_what_to_fetch_and_where_to_put_it(module, tmp_path):
    with pytest.raises(DataError, match="empty; fetch"):
        module.load(module.Config())
    with pytest.raises(DataError, match=r"is no folder; fetch .*put them there"):
        module.load(module.Config(str(tmp_path / "none")))
    with pytest.raises(DataError, match="holds"):
        module.load(module.Config(str(tmp_path)))


def test_bad_lines_are_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n{"a": }\n')
    with pytest.raises(DataError, match="line 3 holds no JSON object"):
        read_records(tmp_path / "x.jsonl", {"a": make_text_column("a")})
    (tmp_path / "x.jsonl").write_text("{\"a\": ['x', ['y', 'x']], 'b': u'2'}\n{}\n")
    found = read_records(
        tmp_path / "x.jsonl", {"a": make_text_column("c", "a"), "b": make_number_column("b")}
    )
    assert found.rows() == [("x, y", 2.0), (None, None)]
    module, config = make("yelp", tmp_path)
    with pytest.raises(ConfigError, match="no line has the field 'stern'"):
        module.load(dataclasses.replace(config, rating="stern"))


def test_ml_10m_is_utf8_without_profiles(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::7::4.5::838985046\n")
    (tmp_path / "movies.dat").write_text("7::Misérables, Les (1995)::Drama\n")
    found = movielens.load(movielens.Config(str(tmp_path)))
    assert found.items["text"].to_list() == ["Misérables, Les (1995). Drama"]


def test_times_in_which_items_can_be_had_are_kept(tmp_path):
    (tmp_path / "e.csv").write_text("user,item,time\nu,1,5\n")
    path = tmp_path / "i.csv"
    path.write_text("item,title,available_from,available_until\n1,a,2020-01-01,\n2,b,,1600000000\n")
    config = tables.Config(interactions=str(tmp_path / "e.csv"), items=str(path))
    wrong = tmp_path / "j.csv"
    wrong.write_text("item,title,available_from\n1,a,soon\n")
    with pytest.raises(DataError, match="no time"):
        tables.load(dataclasses.replace(config, items=str(wrong)))
    found = tables.load(config).items
    assert found.select("available_from", "available_until").rows() == [
        (1577836800000, None),
        (None, 1600000000000),
    ]
    path.write_text("item,title,available_from,available_until\n1,a,2020-01-02,2020-01-01\n")
    with pytest.raises(DataError, match="row 1 is available until"):
        tables.load(config)


def small():
    rows = [
        ("a", "x", 1, 5.0, "buy"),
        ("a", "y", 2, 2.0, "view"),
        ("a", "x", 3, 4.0, "view"),
        ("b", "x", 4, 3.0, "view"),
        ("b", "z", 5, 5.0, "buy"),
        ("b", "x", 4, 1.0, "buy"),
    ]
    frame = pl.DataFrame(rows, ["user", "item", "time", "rating", "event"], orient="row")
    frame = frame.with_columns(pl.col("time") * DAY * 1000)
    items = pl.DataFrame({"item": list("xyzw"), "text": ["one two", "one", "a b c", "d e"]})
    return Tables(frame, items, pl.DataFrame({"user": ["a", "b"], "text": ["", ""]}))


@pytest.mark.parametrize(
    ("options", "rows", "said"),
    [
        ({"repeats": "first"}, [0, 1, 3, 4], "data.repeats: 2 of 6"),
        ({"repeats": "last"}, [1, 2, 4, 5], "data.repeats: 2 of 6"),
        ({"min_rating": 4}, [0, 2, 4], "data.min_rating: 3 of 6"),
        ({"since": "1970-01-03", "until": "1970-01-05"}, [1, 2], "data.since and until: 4 of 6"),
        ({"event_types": {"buy": 1}}, [0, 4, 5], "data.event_types: 3 of 6"),
        ({"min_text": 2}, [0, 2, 3, 4, 5], "data.min_text: 1 of 4 items"),
        ({"k_core": 2}, [0, 2, 3, 5], "data.k_core: 3 of 4 items"),
        ({"min_rating": 3, "repeats": "last"}, [2, 3, 4], "data.repeats: 1 of 4"),
    ],
)
def test_filters_leave_out_what_they_say(options, rows, said):
    found = small()
    left = filters.filter_tables(found, **options)
    assert left.interactions.rows() == found.interactions[rows].rows()
    assert any(note.startswith(said) for note in left.notes)
    assert compute_fingerprint(left) != compute_fingerprint(found)


def test_filters_are_off_by_default():
    found = small()
    left = filters.filter_tables(found)
    assert (compute_fingerprint(left), left.notes) == (compute_fingerprint(found), ())
    run = compose_data(["data.k_core=null", "data.event_types={}"])
    assert run.data == compose_data([]).data


def test_types_weigh_what_they_say_times_the_weight():
    left = filters.filter_tables(small(), event_types={"buy": 3, "view": 0.5}).interactions
    assert left["weight"].to_list() == [3, 0.5, 0.5, 0.5, 3, 3]
    twice = small()
    weighed = twice.interactions.with_columns(weight=pl.lit(2.0))
    twice = dataclasses.replace(twice, interactions=weighed)
    left = filters.filter_tables(twice, event_types={"buy": 3}).interactions
    assert left["weight"].to_list() == [6, 6, 6]


def test_a_core_is_counted_until_nothing_changes():
    """Without z user c has one event, without c item y has one."""
    pairs = ["ax", "ay", "bx", "bw", "cy", "cz", "bx", "aw"]
    frame = pl.DataFrame({"user": [p[0] for p in pairs], "item": [p[1] for p in pairs]})
    items = pl.DataFrame({"item": list("wxyz"), "text": list("wxyz")})
    users = pl.DataFrame({"user": list("abc"), "text": [""] * 3})
    left = filters.filter_tables(Tables(frame, items, users), k_core=2)
    assert left.interactions.rows() == [tuple(p) for p in ("ax", "bx", "bw", "bx", "aw")]
    assert left.items["item"].to_list() == ["w", "x"]
    assert left.users["user"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"event_types": {"bye": 1}}, "no event is of the type 'bye'; buy, view are"),
        ({"event_types": {"buy": 0}}, "give a weight above 0"),
        ({"event_types": {"buy": 1}, "event_column": "kind"}, "needs the column 'kind'"),
        ({"since": "soon"}, "data.since is 'soon'; give an ISO date"),
        ({"k_core": 9}, "The filters leave no interactions"),
    ],
)
def test_filters_that_cannot_be_are_refused(options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        filters.filter_tables(small(), **options)
