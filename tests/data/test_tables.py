"""Checking, naming, times, fingerprints and texts."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.columns.times import parse_times
from recsys.data.readers.templates import fill_template
from recsys.data.tables import IdMap, Tables, check_tables, compute_fingerprint, limit_tables
from recsys.errors import ConfigError, DataError

GOLDEN = "b16abb6e9fa9623458af9cad3b042ad9f1854582f17bdc663aac911d0dd0c263"


def small() -> Tables:
    return Tables(
        pl.DataFrame({"user": ["u1", "u1", "u2"], "item": ["01", "1", "1"], "time": [3, 1, 2]}),
        pl.DataFrame({"item": ["01", "1"], "text": ["a", "b"]}),
        pl.DataFrame({"user": ["u1", "u2"], "text": ["", ""]}),
    )


def test_good_tables_pass_unchanged() -> None:
    tables = small()
    assert check_tables(tables, "x") is tables


def test_an_unknown_item_is_named_with_user_and_row() -> None:
    t = small()
    bad = t.interactions.with_columns(item=pl.Series(["01", "zz", "1"]))
    with pytest.raises(DataError, match=r"row 2 \(user 'u1', item 'zz'\).*unknown item"):
        check_tables(Tables(bad, t.items, t.users), "x")


def test_an_unknown_user_is_named() -> None:
    t = small()
    with pytest.raises(DataError, match=r"row 3 \(user 'u2'.*unknown user"):
        check_tables(Tables(t.interactions, t.items, t.users.head(1)), "x")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pl.DataFrame({"item": ["1", "1"], "text": ["a", "b"]}), "'1' appears again in row 2"),
        (pl.DataFrame({"item": ["01", "1"], "text": ["a", " "]}), "'1' in row 2 has an empty text"),
        (pl.DataFrame({"item": ["01", "1"]}), "no column 'text'"),
        (pl.DataFrame({"item": [1, 2], "text": ["a", "b"]}), "'item' is Int64"),
        (pl.DataFrame({"item": ["1", None], "text": ["a", "b"]}), "row 2 has no usable value"),
        (pl.DataFrame(schema={"item": pl.String, "text": pl.String}), "no items are left"),
    ],
)
def test_bad_items_are_refused_in_one_sentence(items: pl.DataFrame, message: str) -> None:
    t = small()
    with pytest.raises(DataError, match=message):
        check_tables(Tables(t.interactions, items, t.users), "x")


def test_a_rating_that_is_not_finite_is_refused() -> None:
    t = small()
    bad = t.interactions.with_columns(rating=pl.Series([1.0, float("nan"), 2.0]))
    with pytest.raises(DataError, match="row 2 has no usable value in column 'rating'"):
        check_tables(Tables(bad, t.items, t.users), "x")


def test_seconds_milliseconds_text_and_datetimes_agree() -> None:
    want = [881250949000, 891717742000]
    iso = ["1997-12-04T15:55:49", "1998-04-04T21:22:22+02:00"]
    for column in (
        pl.Series("t", [881250949, 891717742]),
        pl.Series("t", [881250949000, 891717742000]),
        pl.Series("t", ["881250949", "891717742"]),
        pl.Series("t", [881250949.0, 891717742.0]),
        pl.Series("t", iso),
        pl.Series("t", [datetime(1997, 12, 4, 15, 55, 49), datetime(1998, 4, 4, 19, 22, 22)]),
    ):
        assert parse_times(column, "x").to_list() == want
        assert parse_times(column, "x").dtype == pl.Int64


@pytest.mark.parametrize("values", [["1", "soon", "3"], ["2020-01-01", "soon", "2020-01-02"]])
def test_an_unreadable_time_is_named_with_its_row(values: list[str]) -> None:
    with pytest.raises(DataError, match=r"f.csv: row 2 of column 't' holds 'soon'"):
        parse_times(pl.Series("t", values), "f.csv")


def test_microseconds_are_refused() -> None:
    with pytest.raises(DataError, match="neither in seconds nor"):
        parse_times(pl.Series("t", [881250949000000]), "f.csv")


def test_the_fingerprint_changes_with_every_part_and_not_with_chunks() -> None:
    t = small()
    base = compute_fingerprint(t)
    chunked = pl.concat([t.interactions.head(1), t.interactions.tail(2)], rechunk=False)
    assert compute_fingerprint(Tables(chunked, t.items, t.users)) == base
    others = [
        Tables(t.interactions.reverse(), t.items, t.users),
        Tables(t.interactions.cast({"time": pl.Int32}), t.items, t.users),
        Tables(t.interactions.rename({"time": "t"}), t.items, t.users),
        Tables(t.interactions, t.items.with_columns(text=pl.Series(["ab", ""])), t.users),
        Tables(t.interactions, t.items.with_columns(text=pl.Series(["", "ab"])), t.users),
        Tables(t.interactions, t.items.with_columns(text=pl.Series(["ab", None])), t.users),
        Tables(t.interactions.with_columns(time=pl.Series([3, None, 2])), t.items, t.users),
        Tables(t.interactions.with_columns(time=pl.Series([3, 0, 2])), t.items, t.users),
    ]
    assert len({base, *(compute_fingerprint(o) for o in others)}) == 9


def test_the_fingerprint_of_a_known_table_stays() -> None:
    # Golden: a change here orphans every prepared data set and run on disk.
    assert compute_fingerprint(small()) == GOLDEN


@given(st.lists(st.text(), unique=True))
def test_ids_come_back(ids: list[str]) -> None:
    ids_map = IdMap(ids, "item")
    assert ids_map.get_names(ids_map.get_rows(reversed(ids)).tolist()) == ids[::-1]


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(DataError, match="No item has the id 'B0012'; the nearest is 'B0011'"):
        IdMap(["A7", "B0011"], "item").get_row("B0012")
    with pytest.raises(DataError) as caught:  # a number that looks alike is another one
        IdMap(["A7", "916"], "user").get_row("196")
    assert str(caught.value) == "No user has the id '196'."
    with pytest.raises(DataError, match="row -1"):
        IdMap(["A7"], "item").get_names([-1])


def test_limit_keeps_whole_users_and_the_most_used_items() -> None:
    events = [(f"u{u}", f"i{i}") for u in range(20) for i in range(u % 5 + 1)]
    t = Tables(
        pl.DataFrame(events, schema=["user", "item"], orient="row"),
        pl.DataFrame({"item": [f"i{i}" for i in range(9)], "text": ["x"] * 9}),
        pl.DataFrame({"user": [f"u{u}" for u in range(20)], "text": [""] * 20}),
    )
    few = limit_tables(t, 7, None, seed=1)
    assert few.users.height == 7
    assert few.items.height == 9
    for user, count in few.interactions["user"].value_counts().iter_rows():
        assert count == int(user[1:]) % 5 + 1
    assert limit_tables(t, 7, None, seed=1).users.equals(few.users)
    assert not limit_tables(t, 7, None, seed=2).users.equals(few.users)
    assert limit_tables(t, None, 2, seed=1).items["item"].to_list() == ["i0", "i1"]
    assert limit_tables(t, None, None, seed=1).interactions.equals(t.interactions)


@pytest.mark.parametrize(
    ("row", "template", "want"),
    [
        (("Heat", "1995", "Crime"), "{a} ({b}). {c}", "Heat (1995). Crime"),
        (("Heat", None, "Crime"), "{a} ({b}). {c}", "Heat. Crime"),
        (("Heat", None, None), "{a} ({b}). {c}", "Heat"),
        ((None, None, "Crime"), "{a} ({b}). {c}", "Crime"),
        ((None, None, None), "{a} ({b}). {c}", ""),
        (("24", None, "clerk"), "{a}, {b}, {c}", "24, clerk"),
        ((None, "M", None), "{a}, {b}, {c}", "M"),
        ((" ", "M", "x"), "{a}, {b}, {c}", "M, x"),
        (("T", None, None), "{a} ({b}, {c})", "T"),
        (("T", None, "x"), "{a} ({b}, {c})", "T (x)"),
        (("Drum &amp; Bass  &quot;x&quot;", "()", "y"), "{a} {b} {c}", 'Drum & Bass "x" () y'),
        (("a\tb", "c", "d"), "{{{a}}}\n{b}", "{a b}\nc"),
    ],
)
def test_fill(row: tuple[str | None, ...], template: str, want: str) -> None:
    schema = {"a": pl.String, "b": pl.String, "c": pl.String}
    assert fill_template(pl.DataFrame([row], schema, orient="row"), template).to_list() == [want]


def test_fill_joins_lists_and_takes_numbers() -> None:
    frame = pl.DataFrame({"year": [1995], "genres": [["Crime", "Drama"]]})
    assert fill_template(frame, "{year}: {genres}").to_list() == ["1995: Crime, Drama"]


def test_fill_names_the_nearest_column() -> None:
    with pytest.raises(ConfigError, match=r"no column 'titel'.*did you mean 'title'.*title, year"):
        fill_template(pl.DataFrame({"title": ["a"], "year": [1]}), "{titel}")
    for template in ("{title", "{title:>9}", "{title!r}", "{}"):
        with pytest.raises(ConfigError, match="template"):
            fill_template(pl.DataFrame({"title": ["a"]}), template)
