"""Damaged and odd files: one sentence with the file, the row and the value as it stands there."""

import dataclasses
import gzip
import json

import polars as pl
import pytest

from recsys.config.compose import compose_data
from recsys.data.columns.times import parse_times
from recsys.data.readers.templates import join_values, strip_markup
from recsys.data.sources import goodreads, movielens, online_retail, tables
from recsys.data.tables import Tables, check_tables
from recsys.errors import ConfigError, DataError
from tests.data.samples import lines, make, packed


def refused(module, config):
    with pytest.raises(DataError) as caught:
        module.load(config)
    return str(caught.value)


def edited(name, folder, file, change):
    """A sample whose file's lines were changed; its module, configuration, and path."""
    module, config = make(name, folder)
    path = folder / name / file
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    packed(path, "".join(change(text.decode().splitlines(keepends=True))))
    return module, config, path


@pytest.mark.parametrize(
    "value", ["1400000000000", "1e300", "-62135596801", "nan", "soon", ""], ids=str
)
def test_one_odd_time_among_seconds_is_refused(value, tmp_path):
    def change(rows):
        user, item, rating, _ = rows[3].split(",")
        return [*rows[:3], f"{user},{item},{rating},{value}\n", *rows[4:]]

    module, config, path = edited("movielens", tmp_path, "ratings.csv", change)
    said = refused(module, config)
    assert f"{path}: row 3 of column 'time'" in said
    assert (f"'{value}" in said) or value in ("1e300", "") or value == "nan"


@pytest.mark.parametrize("value", ["0001-01-01", "2300-01-01T00:00:00Z"])
def test_a_date_of_another_age_is_refused(value):
    with pytest.raises(DataError, match=rf"f.csv: row 2 .*'{value}', which lies outside the years"):
        parse_times(pl.Series("time", ["2020-01-01", value]), "f.csv")
    assert parse_times(pl.Series("time", ["2199-12-31", "1900-01-01"]), "f.csv").len() == 2


def test_a_bound_may_stand_for_ever(tmp_path):
    (tmp_path / "e.csv").write_text("user,item,time\nu,1,5\n")
    (tmp_path / "i.csv").write_text("item,title,available_until\n1,a,9999-12-31\n")
    config = tables.Config(interactions=str(tmp_path / "e.csv"), items=str(tmp_path / "i.csv"))
    assert tables.load(config).items["available_until"][0] == 253402214400000


@pytest.mark.parametrize("value", [10**400, "many", [1]], ids=["long", "text", "list"])
def test_what_is_no_number_is_told_as_it_stands(value, tmp_path):
    def change(rows):
        return [*rows[:4], json.dumps({**json.loads(rows[4]), "overall": value}) + "\n", *rows[5:]]

    module, config, path = edited("amazon_2018", tmp_path, "Things_5.json.gz", change)
    said = refused(module, config)
    assert f"{path}: line 5 has the rating '{str(value)[:40]}', which is no number" in said


def test_half_a_character_is_replaced(tmp_path):
    half = "\ud83d"  # what cutting an emoji in two leaves
    module, config = make("amazon_2018", tmp_path)
    folder = tmp_path / "amazon_2018"
    row = {"reviewerID": "u", "asin": "0000", "overall": 1, "unixReviewTime": 1_400_000_000}
    lines(folder / "Things_5.json.gz", [row | {"reviewText": f"a {half}"}])
    meta = {"asin": "0000", "title": f"b {half} \U0001f600"}
    lines(folder / "meta_Things.json.gz", [meta])
    found = module.load(config)
    assert found.interactions["review"].to_list() == ["a \ufffd"]
    assert found.items["title"].to_list() == ["b \ufffd \U0001f600"]
    module, config = make("rows", tmp_path)
    names = {i: {"title": f"{i} {half}"} for i in range(9)}
    packed(tmp_path / "rows" / "items.json.gz", json.dumps(names))
    assert module.load(config).items["title"][0] == "0 \ufffd"


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        ("amazon_2018", "Things_5.json.gz", "reviewerID"),
        ("yelp", "yelp_academic_dataset_review.json", "user_id"),
        ("goodreads", "goodreads_interactions_poetry.json.gz", "user_id"),
    ],
)
def test_a_row_is_counted_before_anything_is_left_out(name, file, key, tmp_path):
    """The first rows are with an unknown item, and would go."""

    def change(rows):
        found = [json.loads(row) for row in rows]
        item = {"amazon_2018": "asin", "yelp": "business_id", "goodreads": "book_id"}[name]
        for row in found[:3]:
            row[item] = "unknown"
        found[8][key] = " "
        return [json.dumps(row) + "\n" for row in found]

    module, config, path = edited(name, tmp_path, file, change)
    assert f"{path}: interactions: row 9 has no usable value in column 'user'" in refused(
        module, config
    )


@pytest.mark.parametrize(
    ("name", "file", "line", "said"),
    [
        ("movielens", "ratings.csv", "1,2,3,4,5\n", "line 3 has 5 columns, not 4"),
        ("movietweetings", "ratings.dat", "1::2::3::4::5\n", "line 3 has 5 columns, not 4 (user,"),
        ("tables", "e.csv", "1,2,3,4\n", "line 3 has 4 columns, not 3"),
    ],
)
def test_a_line_with_too_many_columns_is_named(name, file, line, said, tmp_path):
    def change(rows):
        return [*rows[:2], line, *rows[2:]]

    module, config, path = edited(name, tmp_path, file, change)
    told = refused(module, config)
    assert f"{path}: {said}" in told
    assert "new_columns" not in told
    assert "extra_columns" not in told


def test_a_weight_below_zero_is_refused():
    events = pl.DataFrame({"user": ["u"] * 2, "item": ["i"] * 2, "weight": [0.0, -1.0]})
    items, users = pl.DataFrame({"item": ["i"], "text": ["a"]}), pl.DataFrame({"user": ["u"]})
    users = users.with_columns(text=pl.lit(""))
    with pytest.raises(DataError, match="x: interactions: row 2 has the weight -1"):
        check_tables(Tables(events, items, users), "x")


def test_a_template_without_quotes_says_how_to_quote_it():
    with pytest.raises(ConfigError, match=r"needs quotes of its own, as in .*\"'\{titel\}'\""):
        compose_data(["data.source=movielens", "data.source.item_text={titel}"])
    run = compose_data(["data.source=movielens", "data.source.item_text='{title}'"])
    assert run.data.source.item_text == "{title}"


HEAD = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def shop(folder, dates, encoding="utf-8", name="CAFE"):
    rows = [f"{500 + n},10001,{name},1,{d},2.5,17850,UK\n" for n, d in enumerate(dates)]
    (folder / "x.csv").write_bytes((HEAD + "".join(rows)).encode(encoding))
    return online_retail.Config(str(folder))


@pytest.mark.parametrize(
    ("dates", "said", "days"),
    [
        (["1/2/2011 8:26", "2/2/2011 8:26", "1/3/2011 8:26"], "day/month/year, as", [32, 33, 60]),
        (["2/1/2011 8:26", "2/2/2011 8:26", "2/3/11 8:26:07"], "month/day/year", [32, 33, 34]),
        (["1/2/2011 8:26", "13/1/2011 8:26"], "day/month/year, the only", [32, 13]),
        (["1/13/2011 8:26", "1/12/2011 8:26"], "month/day/year, the only", [13, 12]),
        (["2/1/2011 8:26"], "month/day/year, as no date", [32]),
        (["13/1/2011 8:26", "2011-02-01 08:26:00"], "day/month/year", [13, 32]),
    ],
)
def test_the_order_of_a_date_is_that_in_which_invoices_rise(dates, said, days, tmp_path):
    found = online_retail.load(shop(tmp_path, dates))
    times = found.interactions["time"].cast(pl.Datetime("ms"))
    assert times.dt.ordinal_day().to_list() == days
    assert any(said in note for note in found.notes)


def test_a_date_that_is_none_is_told_as_it_stands_with_its_row_in_the_file(tmp_path):
    config = shop(tmp_path, ["1/13/2011 8:26"] * 3 + ["soon/later"])
    text = (tmp_path / "x.csv").read_text().splitlines(keepends=True)
    (tmp_path / "x.csv").write_text("".join([text[0], text[1].replace("17850", ""), *text[1:]]))
    assert "x.csv: row 5 has the date 'soon/later'" in refused(online_retail, config)


def test_a_csv_in_latin_1_is_read(tmp_path):
    config = shop(tmp_path, ["2011-01-01 08:26:00"], "latin-1", "CAFÉ £")
    assert online_retail.load(config).items["text"].to_list() == ["CAFÉ £"]


def test_a_spreadsheet_without_a_reader_says_what_to_do(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("fastexcel")

    monkeypatch.setattr(pl, "read_excel", missing)
    (tmp_path / "Online Retail.xlsx").write_bytes(b"PK")
    said = refused(online_retail, online_retail.Config(str(tmp_path)))
    assert "pip install fastexcel, or save its sheets as one CSV file" in said


def test_the_sheets_of_a_spreadsheet_are_read_one_after_the_other(tmp_path, monkeypatch):
    """As the reader gives them without types; the reader itself is not among the tests' needs."""
    config = shop(tmp_path, ["2011-01-01 08:26:00", "2011-01-02 08:26:00"])
    rows = pl.read_csv(tmp_path / "x.csv", infer_schema=False)
    want = online_retail.load(config)
    (tmp_path / "x.csv").unlink()
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    sheets = {"2009": rows[:1], "2010": rows[1:]}
    monkeypatch.setattr(pl, "read_excel", lambda *_, **__: sheets)
    found = online_retail.load(config)
    assert found.interactions.equals(want.interactions)
    assert found.items.equals(want.items)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("profiles", [True, False])
def test_ml_1m_is_read_in_either_encoding_with_and_without_profiles(encoding, profiles, tmp_path):
    (tmp_path / "ratings.dat").write_text("1::7::4::838985046\n")
    films = "7::Misérables, Les (1995)::Drama\n"
    (tmp_path / "movies.dat").write_bytes(films.encode(encoding))
    if profiles:
        (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    found = movielens.load(movielens.Config(str(tmp_path)))
    assert found.items["text"].to_list() == ["Misérables, Les (1995). Drama"]
    assert found.users["text"].to_list() == ["under 18, F, K-12 student" if profiles else ""]


def test_quotes_of_a_csv_are_no_part_of_a_title(tmp_path):
    module, config = make("goodreads_once", tmp_path)
    path = tmp_path / "goodreads_once" / "items.tsv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    packed(path, text.replace("Book 0", '"""P"" is for Peril"').replace("Book 1", 'O"Hara'))
    assert module is goodreads
    assert module.load(config).items["title"][:2].to_list() == ['"P" is for Peril', 'O"Hara']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["<b>Good</b>", "cheap"], "Good, cheap"),
        (["Gift Cards", "</span></span>"], "Gift Cards"),
        (["A", "</span>", "B", "A"], "A, B"),
        ("<script>var a = 1;</script>Well <!-- no -->made<br/>.", "Well made."),
        ("3 < 4 > 2 , so", "3 < 4 > 2 , so"),
        ([], None),
        (None, None),
        ("<p>", None),
        (7, "7"),
    ],
)
def test_markup_goes_with_the_blanks_and_commas_it_leaves(value, text):
    found = strip_markup(value)
    assert (None if found is None else " ".join(found.split())) == text
    assert join_values(["a", ["b", None, "a"], {"c": 1}]) == "a, b, c: 1"


def test_mind_says_which_times_are_made_up(tmp_path):
    module, config = make("mind", tmp_path)
    found = module.load(dataclasses.replace(config, held_out=0.5))
    told = found.interactions["impression"].null_count()
    said = " ".join(found.notes)
    assert f"mind: {told} of {found.interactions.height} events are clicks that only" in said
    assert "train although the time made up" not in said
    path = tmp_path / "mind" / "MINDsmall_train" / "behaviors.tsv"
    late = "99\tlate\t11/4/2019 11:59:00 PM\tN1 N2 N3\tN4-1 N5-0\n"
    path.write_text(path.read_text() + late)
    said = " ".join(module.load(dataclasses.replace(config, held_out=0.5)).notes)
    assert "mind: 3 of them train although the time made up" in said
