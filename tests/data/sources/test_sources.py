"""Sources: the same data in every layout, real files where they are, archives without network."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.sources import movielens, quickstart, sequences, tables
from recsys.data.splits import methods
from recsys.errors import ConfigError, DataError
from recsys.metrics.beyond_accuracy import parse_categories

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("RECSYS_TEST_DATA", ROOT.parent / "shared" / "data"))


def real(name: str) -> str:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder {name} in RECSYS_TEST_DATA or ../shared/data")
    return str(DATA / name)


RATINGS = [("1", "7", "5", "881250949"), ("2", "7", "3", "891717742"), ("1", "08", "4", "1")]


def flags(*on: int) -> str:
    return "|".join("1" if n in on else "0" for n in range(19))


def layout(folder: Path, kind: str) -> Path:
    """The same two films, two users and three ratings in each layout."""

    def put(name: str, text: str, encoding: str = "utf-8") -> None:
        (folder / name).write_bytes(text.encode(encoding))

    def rows(separator: str) -> str:
        return "".join(separator.join(r) + "\n" for r in RATINGS)

    folder.mkdir(parents=True, exist_ok=True)
    if kind == "100k":
        put("u.data", rows("\t"))
        films = f"7|Misérables, Les (1995)|d||u|{flags(8, 12)}\n08|unknown||||{flags(0)}\n"
        put("u.item", films, "latin-1")
        put("u.user", "1|24|M|technician|0\n2|53|F|other|0\n")
    elif kind == "1m":
        put("ratings.dat", rows("::"))
        films = "7::Misérables, Les (1995)::Drama|Musical\n08::unknown::\n"
        put("movies.dat", films, "latin-1")
        put("users.dat", "1::M::24::17::0\n2::F::53::0::0\n")
    elif kind == "latest":
        put("ratings.csv", "userId,movieId,rating,timestamp\n" + rows(","))
        put(
            "movies.csv",
            'movieId,title,genres\r\n7,"Misérables, Les (1995)",Drama|Musical\r\n'
            "08,unknown,(no genres listed)\r\n",
        )
    else:
        head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        put("x.inter", head + rows("\t"))
        head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        put("x.item", head + "7\tMisérables, Les\t1995\tDrama Musical\n08\tunknown\t\t\n")
        head = "user_id:token\tage:token\tgender:token\toccupation:token\n"
        put("x.user", head + "1\t24\tM\ttechnician\n2\t53\tF\tother\n")
    return folder


@pytest.mark.parametrize("kind", ["100k", "1m", "latest", "recbole"])
def test_every_movielens_layout_gives_the_same_tables(tmp_path: Path, kind: str) -> None:
    got = movielens.load(movielens.Config(str(layout(tmp_path, kind))))
    texts = ["Misérables, Les (1995). Drama, Musical", "unknown"]
    assert got.items["item"].to_list() == ["7", "08"]
    assert [t.rstrip(".") for t in got.items["text"]] == texts
    assert got.interactions.select("user", "item", "rating", "time").rows() == [
        (u, i, float(r), int(t) * 1000) for u, i, r, t in RATINGS
    ]
    # Kinds stay apart in the column, as what counts categories needs them.
    assert parse_categories(got.items["genres"])[0] == ["Drama", "Musical"]
    people = ["", ""] if kind == "latest" else ["24, M, technician", "53, F, other"]
    assert got.users["text"].to_list() == people


def test_a_folder_without_movielens_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no MovieLens set"):
        movielens.load(movielens.Config(str(tmp_path)))


def test_films_without_genres_need_another_template(tmp_path: Path) -> None:
    layout(tmp_path, "latest")
    (tmp_path / "movies.csv").write_text("movieId,title\n7,A (1995)\n08,B\n")
    with pytest.raises(ConfigError, match="names no column 'genres'"):
        movielens.load(movielens.Config(str(tmp_path)))
    got = movielens.load(movielens.Config(str(tmp_path), item_text="{title} ({year})"))
    assert got.items["text"].to_list() == ["A (1995)", "B"]


def test_a_wrong_template_names_the_columns(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'title'"):
        movielens.load(movielens.Config(str(layout(tmp_path, "1m")), item_text="{titel}"))


def test_real_movielens_100k() -> None:
    got = movielens.load(movielens.Config(real("ml-100k")))
    # 100,000 ratings of 1,682 films by 943 users: GroupLens' README of ml-100k.
    assert (got.interactions.height, got.items.height, got.users.height) == (100000, 1682, 943)
    assert got.items["text"][0] == "Toy Story (1995). Animation, Children's, Comedy"
    # The texts as they were when the column still held commas, and the 19 genres of the README.
    digest = hashlib.sha256("\0".join(got.items["text"]).encode()).hexdigest()
    assert digest.startswith("2b66ac2faf83")
    assert len({kind for each in parse_categories(got.items["genres"]) for kind in each}) == 19
    assert len(methods.make_split(got, movielens.Config.default_split).list_cases(2)) == 943


def test_real_sequences() -> None:
    got = sequences.load(sequences.Config(real("amazon-instruments")))
    # Counts of the set's own README.
    assert (got.users.height, got.interactions.height) == (10000, 83828)
    assert got.interactions["item"].n_unique() == 20618
    assert not got.items["text"].str.contains("&quot;|&amp;").any()
    first = got.interactions.filter(user=got.users["user"][0])["item"].to_list()
    assert first[:2] == ["B00EOZ5MO6", "B015WZOG2U"]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_sequences_with_and_without_header_and_gz(
    tmp_path: Path, header: bool, packed: bool
) -> None:
    files = {
        "items.tsv": ("item_id\ttitle\r\n", '007\tA "B" &amp; C\r\n1\tD\r\n'),
        "users.tsv": ("user_id\titems\r\n", "u\t1 007 1\r\nv\t\r\n"),
    }
    for name, (head, body) in files.items():
        raw = ("\ufeff" + head * header + body).encode()
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(raw) if packed else raw)
    got = sequences.load(sequences.Config(str(tmp_path)))
    assert got.items.rows() == [("007", 'A "B" & C'), ("1", "D")]
    assert got.interactions.rows() == [("u", "1"), ("u", "007"), ("u", "1")]
    assert got.users["user"].to_list() == ["u", "v"]


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ('"Zildjian K Custom 20"" Dark Ride Cymbal"', 'Zildjian K Custom 20" Dark Ride Cymbal'),
        ('"Flute in F, 28"""', 'Flute in F, 28"'),
        ('"Black" and "White"', '"Black" and "White"'),
        ('8" Cymbal', '8" Cymbal'),
        ('"', '"'),
    ],
)
def test_sequences_take_off_the_quotes_of_a_csv(tmp_path: Path, written: str, title: str) -> None:
    (tmp_path / "items.tsv").write_text(f"1\t{written}\n")
    (tmp_path / "users.tsv").write_text("u\t1\n")
    assert sequences.load(sequences.Config(str(tmp_path))).items["text"].to_list() == [title]


def test_sequences_name_the_bad_line_or_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no items.tsv or items.tsv.gz"):
        sequences.load(sequences.Config(str(tmp_path)))
    (tmp_path / "items.tsv").write_text("1\ta\n2 b\n")
    (tmp_path / "users.tsv").write_text("u\t1\n")
    with pytest.raises(DataError, match="line 2 has no tab"):
        sequences.load(sequences.Config(str(tmp_path)))


def mapped(folder: Path, events: str, items: str, **more: str) -> tables.Config:
    return tables.Config(interactions=str(folder / events), items=str(folder / items), **more)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_every_table_format_gives_the_same_tables(tmp_path: Path, kind: str) -> None:
    events = pl.DataFrame(
        {"who": ["007", "08"], "sku": ["0001", "1"], "at": ["2020-01-01", "2020-01-02"]}
    )
    items = pl.DataFrame({"sku": ["0001", "1"], "title": ["Caf\u00e9, x", "y"]})
    for name, frame in (("e", events), ("i", items)):
        path = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            frame.write_parquet(path)
            continue
        if kind.startswith("jsonl"):
            text = frame.write_ndjson()
        else:
            text = frame.write_csv(separator="\t" if kind == "tsv" else ",")
        raw = ("\ufeff" + text.replace("\n", "\r\n")).encode()
        path.write_bytes(gzip.compress(raw) if kind.endswith("gz") else raw)
    cfg = mapped(tmp_path, f"e.{kind}", f"i.{kind}", user="who", item="sku", time="at")
    got = tables.load(cfg)
    assert got.interactions.rows() == [
        ("007", "0001", 1577836800000),
        ("08", "1", 1577923200000),
    ]
    assert got.items.select("item", "text").rows() == [("0001", "Caf\u00e9, x"), ("1", "y")]
    assert got.users.rows() == [("007", ""), ("08", "")]


def test_table_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,stars,time\nu,1,4,5\nu,1,x,6\n")
    (tmp_path / "i.csv").write_text("item,title\n1,a\n")
    message = r"no column 'star' \(data.source.rating\); did you mean 'sta"
    with pytest.raises(ConfigError, match=message):
        tables.load(mapped(tmp_path, "e.csv", "i.csv", rating="star"))
    with pytest.raises(DataError, match="row 2 of column 'stars' holds 'x'"):
        tables.load(mapped(tmp_path, "e.csv", "i.csv", rating="stars"))
    with pytest.raises(DataError, match="does not exist"):
        tables.load(mapped(tmp_path, "e2.csv", "i.csv"))
    with pytest.raises(ConfigError, match=r"needs data\.source\.users"):
        tables.load(mapped(tmp_path, "e.csv", "i.csv", user_text="{age}"))
    pl.DataFrame({"item": [1.0], "title": ["a"]}).write_parquet(tmp_path / "i.parquet")
    with pytest.raises(DataError, match="ids in column 'item' are Float64"):
        tables.load(mapped(tmp_path, "e.csv", "i.parquet"))


def test_a_column_not_declared_as_time_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,time\nu,1,soon\n")
    (tmp_path / "i.csv").write_text("item,title\n1,a\n")
    got = tables.load(mapped(tmp_path, "e.csv", "i.csv", time=""))
    assert got.interactions.columns == ["user", "item", "time_"]


def test_users_have_texts_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,time\n01,1,5\n")
    (tmp_path / "i.csv").write_text("item,title\n1,a\n")
    (tmp_path / "u.csv").write_text("user,age\n01,30\n02,\n")
    users = str(tmp_path / "u.csv")
    got = tables.load(mapped(tmp_path, "e.csv", "i.csv", users=users, user_text="Age {age}"))
    assert got.users.select("user", "text").rows() == [("01", "Age 30"), ("02", "Age")]


def archive(path: Path, kind: str, inside: str, scratch: Path) -> str:
    """A zip with a layout in a folder, and things beside it; returns its sha256."""
    with zipfile.ZipFile(path, "w") as out:
        for file in layout(scratch, kind).iterdir():
            out.write(file, inside + file.name)
        out.writestr("other/evil.txt", "x")
        out.writestr(inside + "../../evil.txt", "x")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def no_network(aside: Path) -> Path:
    raise OSError("no route to host")


def test_quickstart_takes_the_official_archive_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made.zip"
    digest = archive(made, "100k", "ml-100k/", tmp_path / "scratch")
    calls: list[Path] = []
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(quickstart, "_URL_SHA256", digest)
    monkeypatch.setattr(
        quickstart, "_download_archive", lambda aside: (calls.append(aside), made)[1]
    )
    monkeypatch.setattr(quickstart, "_download_wheel", no_network)
    first = quickstart.load(quickstart.Config())
    said = capsys.readouterr().out
    second = quickstart.load(quickstart.Config())
    assert first.items.equals(second.items)
    assert len(calls) == 1
    assert said.count("\n") == 1
    assert "files.grouplens.org" in said
    assert "not to be redistributed" in said
    # Nothing half-written stays behind, nothing escapes from the archive.
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["ml-100k"]
    names = sorted(p.name for p in (tmp_path / "cache" / "ml-100k").iterdir())
    assert names == ["u.data", "u.item", "u.user"]
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("broken", ["unreachable", "altered"])
def test_quickstart_falls_back_to_the_wheel_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    made = tmp_path / "recbole.whl"
    inside = "recbole/dataset_example/ml-100k/"
    monkeypatch.setattr(
        quickstart, "_WHEEL_SHA256", archive(made, "recbole", inside, tmp_path / "s")
    )
    monkeypatch.setattr(quickstart, "_download_wheel", lambda aside: made)
    other: Any = no_network if broken == "unreachable" else lambda aside: made
    monkeypatch.setattr(quickstart, "_download_archive", other)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    assert quickstart.load(quickstart.Config()).items.height == 2
    said = capsys.readouterr().out
    assert "recbole==1.2.1" in said
    assert ("no route to host" if broken == "unreachable" else "checksum") in said


def test_quickstart_without_network_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "_download_archive", no_network)
    monkeypatch.setattr(quickstart, "_download_wheel", no_network)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"put the files of ml-100k.zip .* into .*cache/ml-100k"):
        quickstart.load(quickstart.Config())
    assert not list((tmp_path / "cache").iterdir())


def test_quickstart_takes_a_given_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "_download_archive", no_network)
    got = quickstart.load(quickstart.Config(path=str(layout(tmp_path, "100k"))))
    assert got.users.height == 2


@pytest.mark.parametrize("source", [movielens, sequences, tables, quickstart])
def test_every_setting_has_help_and_every_source_a_default_split(source: Any) -> None:
    assert all(f.metadata["help"] for f in dataclasses.fields(source.Config))
    assert source.Config().default_split in ("leave_one_out", "time")
