"""Columns as they are spoken of."""

import numpy as np
import polars as pl

from recsys.trained.conversation.columns import ItemColumns, normalize
from recsys.trained.conversation.critiques import Bound, HasValue
from tests.trained.conversation.films import ITEMS


def read(**columns):
    size = len(next(iter(columns.values())))
    frame = pl.DataFrame({"item": [str(n) for n in range(size)], **columns, "text": ["t"] * size})
    return ItemColumns(frame, np.zeros(size))


def test_numbers_are_read_of_numbers_dates_and_money():
    own = ItemColumns(ITEMS, np.zeros(6))
    assert own.numbers["price"].values[:4].tolist() == [9.99, 12.0, 5.0, 1200.5]
    assert np.isnan(own.numbers["price"].values[5])
    dated = read(released=["2001-05-01", "1999-12-31"], when=[None, "x"])
    assert dated.numbers["released"].values.tolist() == [2001, 1999]
    assert dated.find_role("time").name == "released"
    assert list(dated.numbers) == ["released", "popularity"]


def test_a_column_that_is_called_year_and_holds_none_is_no_year():
    assert read(year=[1, 2, 3]).find_role("time") is None
    assert read(model_year=[1990, 2001, 2003]).find_role("time").name == "model_year"
    assert read(yearly=[1990, 2001, 2003]).find_role("time") is None


def test_values_are_split_where_that_makes_them_recur():
    split = read(genre=["drama, war", "war", "drama"], maker=["A, Inc.", "B, Inc.", "A, Inc."])
    assert list(split.values["genre"].rows) == ["drama", "war"]
    assert list(split.values["maker"].rows) == ["A, Inc.", "B, Inc."]
    assert "code" not in read(code=["a", "b", "c"]).values  # none recurs
    stars = read(star=[f"A{n % 40}, B{n % 45}, C{n}" for n in range(90)]).values["star"]
    assert stars.several
    assert len(stars.rows["A3"]) == 3  # though most of the names are of one item each
    names = [f"n{n // 2}" if n < 40 else f"m{n}" for n in range(100)]
    assert "name" not in read(name=names).values  # most of many do not
    assert list(read(tags=[["x", "y"], ["x"], None, ["y"]]).values["tags"].rows) == ["x", "y"]


def test_a_long_text_is_no_value():
    long = "a story that goes on and on"
    assert not read(plot=[long, long, long, long]).values


def test_an_empty_value_fits_a_negation_alone():
    own = ItemColumns(ITEMS, np.zeros(6))
    assert own.match(Bound("year", "<", 1990)).tolist() == [1, 0, 0, 0, 1, 0]
    assert own.match(Bound("year", ">=", 1990)).tolist() == [0, 1, 1, 1, 0, 0]
    comedy = HasValue("genres", ("Comedy", "Horror"))
    assert own.match(comedy).tolist() == [1, 0, 0, 0, 1, 1]
    other = HasValue("genres", ("Comedy",), negated=True)
    assert own.match(other).tolist() == [1, 1, 1, 1, 0, 0]
    assert own.keep([comedy, Bound("year", "<", 1980)]).tolist() == [1, 0, 0, 0, 0, 0]


def test_phrases_are_compared_without_what_does_not_matter():
    assert normalize("Children's") == normalize("childrens") == "children"
    assert normalize("Comédies") == "comedy"
    assert normalize("Film-Noir") == "film noir"
    assert normalize("boss") == "boss"
