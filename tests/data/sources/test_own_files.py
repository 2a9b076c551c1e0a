"""Files as they come: separators, encodings, quotes, names of their own, and what is said."""

import gzip
import re
import shlex
from pathlib import Path

import polars as pl
import pytest

from recsys.config.compose import compose_data
from recsys.data.__main__ import main
from recsys.data.sources import goodreads, movielens, tables
from recsys.errors import ConfigError, DataError
from tests.data.samples import packed

ROOT = Path(__file__).resolve().parents[3]
BOOKS = ['Die Muehle \\"am Bach\\"', "Café; Nacht", "C:\\\\", "Plain &amp; short", "Fünf"]
EVENTS = "who,what,when\n" + "".join(f"u{u},{i},{60 * u + i}\n" for u in range(3) for i in range(3))
ITEMS = "what,name\n" + "".join(f"{i},thing {i}\n" for i in range(3))


def crossing(folder):
    """Book-Crossing as it is published: MySQL's CSV in Latin-1; some books have no row."""
    rows = [f'"{u}";"{i:010d}";"{(u + i) % 11}"' for u in range(6) for i in (*range(4), 77)]
    (folder / "BX-Book-Ratings.csv").write_bytes(
        "\r\n".join(['"User-ID";"ISBN";"Book-Rating"', *rows, ""]).encode("latin-1")
    )
    rows = [f'"{i:010d}";"{title}";"Böll, H."' for i, title in enumerate(BOOKS)]
    (folder / "BX-Books.csv").write_bytes(
        "\r\n".join(['"ISBN";"Book-Title";"Book-Author"', *rows, ""]).encode("latin-1")
    )


def test_book_crossing_is_read_by_the_command_of_the_docs(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^python -m recsys\.data (.*BX-Books.*)$", text, flags=re.MULTILINE)
    crossing(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    assert "6 of 30 interactions are with items that have no description" in capsys.readouterr().out
    items = pl.read_parquet("BX/items.parquet")
    assert items["text"].to_list() == [
        'Die Muehle "am Bach". Böll, H.',
        "Café; Nacht. Böll, H.",
        "C:\\. Böll, H.",
        "Plain & short. Böll, H.",
        "Fünf. Böll, H.",
    ]
    assert items["item"][0] == "0000000000"
    events = pl.read_parquet("BX/interactions.parquet")
    assert events.columns == ["user", "item", "rating"]
    assert events.height == 24


def config(folder, events=EVENTS, items=ITEMS, name="e.csv", **more):
    for file, text in ((name, events), (name.replace("e.", "i."), items)):
        packed(folder / file, text) if isinstance(text, str) else (folder / file).write_bytes(text)
    own = {"user": "who", "item": "what", "time": "when", "item_text": "{name}"} | more
    place = {"interactions": str(folder / name), "items": str(folder / name.replace("e.", "i."))}
    return tables.Config(**place, **own)


def test_items_and_users_may_name_their_ids_otherwise(tmp_path):
    users = tmp_path / "u.csv"
    users.write_text("login,age\n" + "".join(f"u{u},{u}\n" for u in range(3)))
    asked = config(
        tmp_path,
        items=ITEMS.replace("what", "sku"),
        items_id="sku",
        users=str(users),
        users_id="login",
        user_text="{age}",
    )
    found = tables.load(asked)
    assert found.items["item"].to_list() == ["0", "1", "2"]
    assert found.users["text"].to_list() == ["0", "1", "2"]
    asked.items_id = ""
    with pytest.raises(ConfigError, match=r"no column 'what'.*data.source.items_id") as caught:
        tables.load(asked)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("separator", [";", "|", "\\t", "\t", "::", " "])
@pytest.mark.parametrize("name", ["e.csv", "e.dat", "e.txt.gz"])
def test_a_separator_is_what_is_asked_for(separator, name, tmp_path):
    sign = "\t" if separator == "\\t" else separator
    items = ITEMS.replace("thing ", "thing-")
    events, items = (text.replace(",", sign) for text in (EVENTS, items))
    found = tables.load(config(tmp_path, events, items, name=name, separator=separator))
    assert found.interactions.height == 9
    assert found.items["text"].to_list() == ["thing-0", "thing-1", "thing-2"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-8-sig", "cp1252"])
def test_an_encoding_is_what_is_asked_for(encoding, tmp_path):
    events, items = (t.replace("thing", "thé").encode(encoding) for t in (EVENTS, ITEMS))
    assert tables.load(config(tmp_path, events, items, encoding=encoding)).items["text"][0] == (
        "thé 0"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_file_that_begins_with_its_mark_needs_no_word(encoding, tmp_path):
    events, items = (t.replace("thing", "thé").encode(encoding) for t in (EVENTS, ITEMS))
    assert tables.load(config(tmp_path, events, items)).items["text"][0] == "thé 0"


def test_quotes_may_be_text(tmp_path):
    items = ITEMS.replace("thing 1", '"thing" 1')
    found = tables.load(config(tmp_path, items=items, quoting="none"))
    assert found.items["text"][1] == '"thing" 1'


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"events": EVENTS.replace(",", ";")},
            ["one column", "set \"data.source.separator=';'\"."],
        ),
        ({"events": EVENTS.replace(",", "\t")}, ["one column", "data.source.separator='\\t'"]),
        ({"user": "Whos"}, ["no column 'Whos'", "data.source.user", "did you mean 'who'?"]),
        ({"user": "category"}, ["no column 'category'", "Known columns: who, what, when."]),
        ({"encoding": "klingon"}, ["data.source.encoding: 'klingon'", "latin-1"]),
        ({"encoding": "base64"}, ["data.source.encoding: 'base64'", "latin-1"]),
        ({"item_text": "{titel}"}, ["names no column 'titel'", "Known columns: item, name."]),
        (
            {"item_text": "{title}", "items": ITEMS.replace("name", "Book-Title")},
            ["mean 'Book-Title'"],
        ),
        ({"item_text": "name"}, ["'name' names no column; write '{name}'. Known columns: "]),
        ({"item_text": "a thing"}, ["'a thing' names no column; write '{title}'."]),
        (
            {"items": ITEMS.replace("thing 1", "")},
            ["i.csv: items: '1' in row 2 has an empty text", "data.source.unknown=leave_out"],
        ),
        ({"item_text": "{Name}"}, ["names no column 'Name'", "did you mean 'name'?"]),
        (
            {"items": ITEMS.replace("thing", "thé").encode("latin-1")},
            ["i.csv is not UTF-8 at byte", "data.source.encoding=latin-1"],
        ),
        (
            {"items": ITEMS.encode("utf-16-le")},
            ["i.csv holds NUL characters", "UTF-16 without its mark"],
        ),
        ({"events": EVENTS.replace("when", "who", 1)}, ["has the column 'who' twice", "rename"]),
    ],
)
def test_one_sentence_says_what_to_set(change, parts, tmp_path):
    with pytest.raises((ConfigError, DataError)) as caught:
        tables.load(config(tmp_path, **change))
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text


@pytest.mark.parametrize("sign", [",", ";", "|", "\t", "::"])
def test_the_word_on_a_separator_can_be_typed_as_it_is_told(sign, tmp_path, capsys):
    wrong = ";" if sign == "," else ","
    asked = config(tmp_path, *(text.replace(",", sign) for text in (EVENTS, ITEMS)))
    own = ("interactions", "items", "user", "item", "time")
    words = ["source=tables", *(f"{key}={getattr(asked, key)}" for key in own)]
    words += ["item_text='{name}'", "split=leave_one_out", f"separator={wrong}"]
    assert main(words) == 2
    error = capsys.readouterr().err
    (told,) = re.findall(r"set (.*)\.$", error.strip())
    (word,) = shlex.split(told)
    for each in (word, f"data.source.separator={sign}"):
        run = compose_data(["data.source=tables", each])
        assert run.data.source.separator in ((sign, "\\t") if sign == "\t" else (sign,)), each
    assert main([*words, word]) == 0


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("u0,0,0", "u0,0,soon", "row 1 of column 'when' holds 'soon'"),
        ("u0,1,1", "u0,1", "row 2 of column 'when' is empty, or its line is short,"),
        ("u0,1,1", ",1,1", "row 2 has no usable value in column 'who'"),
        ("u0,1,1", "u0, ,1", "row 2 has no usable value in column 'what'"),
    ],
)
def test_a_column_is_called_as_the_file_calls_it(old, new, sentence, tmp_path):
    with pytest.raises(DataError) as caught:
        tables.load(config(tmp_path, EVENTS.replace(old, new)))
    assert sentence in str(caught.value)
    rated = EVENTS.replace("when", "when,stars").replace("\nu", ",2\nu").replace("stars,2", "stars")
    rated = rated.rstrip("\n") + ",good\n"
    with pytest.raises(DataError, match="row 9 of column 'stars' holds 'good'"):
        tables.load(config(tmp_path, rated, rating="stars"))


def test_what_is_unknown_is_refused_or_counted(tmp_path):
    events = EVENTS + "u9,99,5\n"
    with pytest.raises(DataError, match="names an unknown item"):
        tables.load(config(tmp_path, events))
    users = tmp_path / "u.csv"
    users.write_text("who,age\nu1,7\nu1,8\n")
    found = tables.load(
        config(tmp_path, events, unknown="leave_out", users=str(users), user_text="{age}")
    )
    assert found.interactions.height == 9
    assert "1 of 10 interactions" in " ".join(found.notes)
    assert found.users["text"].to_list() == ["", "7", ""]
    kept = tables.load(config(tmp_path, events, unknown="leave_out_items"))
    assert kept.interactions.equals(found.interactions)
    assert [*found.users["user"], "u9"] == kept.users["user"].to_list()


@pytest.mark.parametrize("rating", [True, False])
@pytest.mark.parametrize("time", [True, False])
def test_recbole_files_may_lack_ratings_and_times(rating, time, tmp_path):
    head = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    keep = [0, 1, *([2] if rating else []), *([3] if time else [])]
    rows = [head, ["A", "B0", "4", "880000000"], ["A", "B1", "3", "880000001"]]
    (tmp_path / "my.inter").write_text("".join("\t".join(r[k] for k in keep) + "\n" for r in rows))
    (tmp_path / "my.item").write_text("item_id:token\ttitle:token_seq\nB0\tCream 0\nB1\tCream 1\n")
    found = movielens.load(movielens.Config(str(tmp_path)))
    assert found.items["text"].to_list() == ["Cream 0", "Cream 1"]
    assert ("rating" in found.interactions.columns, "time" in found.interactions.columns) == (
        rating,
        time,
    )
    (tmp_path / "my.item").write_text("item_id:token\tname:token_seq\nB0\tCream 0\nB1\tCream 1\n")
    with pytest.raises(ConfigError, match=r"no column 'title' of the table\. .* item, name"):
        movielens.load(movielens.Config(str(tmp_path)))
    (tmp_path / "my.item").write_text("sku:token\tname:token_seq\nB0\tCream 0\n")
    with pytest.raises(DataError, match="movies lack the column item; their columns are sku, name"):
        movielens.load(movielens.Config(str(tmp_path)))


@pytest.mark.parametrize("name", ["goodreads_interactions.csv", "ratings.csv.gz"])
def test_goodreads_as_csv_is_told_what_reads_it(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(b"user_id,book_id\n"))
    with pytest.raises(DataError, match=rf"holds CSV files \({name}\).*data.source=tables"):
        goodreads.load(goodreads.Config(str(tmp_path)))
