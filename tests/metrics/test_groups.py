import numpy as np
import polars as pl
import pytest

from recsys.metrics.groups import slice_by_column, slice_by_number, slice_by_text


def as_dict(parts):
    return {part.label: part.mask.tolist() for part in parts}


def test_equal_numbers_stay_together_and_missing_ones_come_first():
    found = as_dict(slice_by_number(pl.Series([1.0, 1.0, 1.0, 5.0, None])))
    assert found == {
        "none": [False] * 4 + [True],
        "1": [True] * 3 + [False] * 2,
        "5": [False] * 3 + [True, False],
    }


def test_zero_is_apart_where_it_is_asked_for():
    values = pl.Series([0, 0, 3, 4])
    assert next(iter(as_dict(slice_by_number(values, apart=True)))) == "0 (cold)"
    assert "0 (cold)" not in as_dict(slice_by_number(values))


def test_large_numbers_that_differ_in_the_last_digits_have_labels_of_their_own():
    values = pl.Series([1_700_000_001.0, 1_700_000_002.0, 1_700_000_003.0, 1_700_000_004.0])
    labels = [part.label for part in slice_by_number(values)]
    assert len(set(labels)) == len(labels) == 4


def test_every_case_is_in_one_part():
    rng = np.random.default_rng(0)
    numbers = pl.Series(rng.integers(0, 9, 200))
    texts = pl.Series([f"kind {value}" for value in rng.integers(0, 40, 200)])
    for parts in (
        slice_by_number(numbers),
        slice_by_number(numbers, apart=True),
        slice_by_text(texts, 5),
    ):
        assert (np.sum([part.mask for part in parts], axis=0) == 1).all()


def test_a_text_that_is_called_other_joins_the_rest():
    values = pl.Series(["other"] * 5 + ["a"] * 4 + ["b", "c"])
    found = as_dict(slice_by_text(values, 3))
    assert sorted(found) == ["a", "other"]
    assert sum(found["other"]) == 7
    assert sorted(as_dict(slice_by_text(values, 4))) == ["a", "b", "c", "other"]


def test_a_case_of_several_kinds_stands_in_the_part_of_each():
    values = pl.Series(["drama|war", "drama", "war | drama|war", None, "comedy", ""])
    found = as_dict(slice_by_text(values, 9))
    assert found == {
        "drama": [True, True, True, False, False, False],
        "war": [True, False, True, False, False, False],
        "": [False] * 5 + [True],
        "comedy": [False] * 4 + [True, False],
        "none": [False] * 3 + [True, False, False],
    }
    few = as_dict(slice_by_text(values, 2))
    assert sorted(few) == ["drama", "other"]
    assert few["other"] == [not case for case in few["drama"]]


@pytest.mark.parametrize("kind", [pl.String, pl.Float64, pl.Int32])
def test_numbers_of_a_table_are_cut_into_quantiles_whatever_their_type(kind):
    """A price read from a text file is a text there; labels say the ranges, none is apart."""
    values = pl.Series([*range(100, 120), None]).cast(kind)
    found = as_dict(slice_by_column(values, 20))
    assert list(found) == ["none", "100 to 104", "105 to 109", "110 to 114", "115 to 119"]
    assert [sum(mask) for mask in found.values()] == [1, 5, 5, 5, 5]
    assert found == as_dict(slice_by_number(values.cast(pl.Float64)))


@pytest.mark.parametrize("kind", [pl.String, pl.Float64])
def test_few_different_numbers_stay_kinds_in_their_order(kind):
    values = pl.Series([10, 9, 8, 10, 2, 7, 6, 5, 10, None]).cast(kind)
    found = as_dict(slice_by_column(values, 20))
    assert list(found) == ["none", "2", "5", "6", "7", "8", "9", "10"]
    assert sum(found["10"]) == 3


@pytest.mark.parametrize("values", [[-0.0, 0.0, 1.0], ["-0", "0", "1"]])
def test_zero_has_one_name(values):
    found = as_dict(slice_by_column(pl.Series(values), 20))
    assert {name: int(sum(mask)) for name, mask in found.items()} == {"0": 2, "1": 1}


@pytest.mark.parametrize(
    "texts",
    [
        [f"{n:05}" for n in range(20)],  # postal codes: as numbers they would lose their noughts
        [*map(str, range(20)), "many"],
        [*map(str, range(20)), "nan"],
        ["1|2", "3", *map(str, range(20))],
        ["", "", ""],
    ],
)
def test_what_is_no_number_throughout_stays_text(texts):
    values = pl.Series(texts)
    assert as_dict(slice_by_column(values, 30)) == as_dict(slice_by_text(values, 30))


def test_a_table_of_booleans_is_text():
    assert list(as_dict(slice_by_column(pl.Series([True, False, True]), 9))) == ["true", "false"]
