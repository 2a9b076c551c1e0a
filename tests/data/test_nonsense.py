"""What no data set means: refused where that is sure, told by a run as by the command elsewhere."""

import json

import numpy as np
import polars as pl
import pytest

from recsys.config.compose import compose, compose_data
from recsys.data import prepare
from recsys.data.__main__ import main
from recsys.data.columns.times import parse_times
from recsys.data.describe import describe_tables, estimate_tokens
from recsys.data.sources import jsonl
from recsys.data.splits.methods import collect_events
from recsys.errors import ConfigError, DataError
from recsys.fit.__main__ import main as fit

DAYS = [20200913 + n for n in range(10)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (DAYS, "holds dates as YYYYMMDD.*write them as 2020-09-13"),
        ([f"{d}" for d in DAYS], "holds dates as YYYYMMDD"),
        ([d * 100 + 8 + n % 12 for n, d in enumerate(DAYS * 2)], "holds dates as YYYYMMDDhh,"),
        ([d * 10_000 + 830 for d in DAYS], "holds dates as YYYYMMDDhhmm"),
        ([44087.5 + n for n in range(9)], "holds days as Excel counts them"),
        (["44087", "44088"], "holds days as Excel counts them"),
        ([True, False], "true or false, which is no time"),
        (["true", "false"], "'true', which is no time"),
        (
            [1_600_000_000, -1, 1_600_000_001],
            "row 2 of column 't' holds '-1', a moment before 1970",
        ),
        ([-3.0, -2.0], "row 1 of column 't' holds '-3.0'"),
    ],
    ids=str,
)
def test_what_is_surely_no_time_is_refused(values, said):
    with pytest.raises(DataError, match=said) as caught:
        parse_times(pl.Series("t", values), "f.csv")
    assert str(caught.value).startswith("f.csv: ")


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["2020-09-13", "2020-09-14"], "2020-09-13"),
        ([1_600_000_000, 1_600_000_001], "2020-09-13"),
        ([1_600_000_000_000], "2020-09-13"),
        ([20200931, 20201301], "1970-08-22"),  # no dates: they stay seconds
        ([0, 1, 2], "1970-01-01"),  # an order
        ([40_000, 5], "1970-01-01"),
        ([2020091300], "2034-01-05"),  # seconds, like any other
        (["1965-01-01"], "1965-01-01"),
    ],
    ids=str,
)
def test_other_numbers_are_what_they_were(values, first):
    found = parse_times(pl.Series("t", values), "f.csv")
    assert str(np.datetime64(int(found[0]), "ms").astype("datetime64[D]")) == first


def write(folder, times, weights=None, ratings=None):
    """Six users with five events each."""
    rows = [(u, (u + n) % 6, times[(5 * u + n) % len(times)]) for u in range(6) for n in range(5)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    frame = frame.cast({"user": pl.String, "item": pl.String})
    for name, values in (("weight", weights), ("rating", ratings)):
        if values is not None:
            frame = frame.with_columns(pl.Series(name, (values * 30)[:30]))
    frame.write_csv(folder / "e.csv")
    pl.DataFrame(
        {"item": [str(i) for i in range(6)], "title": [f"t{i}" for i in range(6)]}
    ).write_csv(folder / "i.csv")
    more = [f"{n}={n}" for n, v in (("weight", weights), ("rating", ratings)) if v is not None]
    return [f"interactions={folder / 'e.csv'}", f"items={folder / 'i.csv'}", *more]


def words(found, *more):
    return ["data.source=tables", *(f"data.source.{w}" for w in found), *more]


def test_unlikely_times_are_told_by_a_run_as_by_the_command(tmp_path, capsys):
    asked = write(tmp_path, list(range(30)))
    assert main(["source=tables", *asked]) == 0
    sentence = "times begin on 1970-01-01, before 1995: are some of them missing"
    assert f"warning: {sentence}" in capsys.readouterr().out
    _, split = prepare.prepare_data(compose_data(words(asked)).data)
    assert sum(sentence in note for note in split.notes) == 1
    good = write(tmp_path, [1_600_000_000 + n for n in range(30)])
    tables, split = prepare.prepare_data(compose_data(words(good)).data)
    assert not any("times begin" in note for note in split.notes)
    told = describe_tables(tables, collect_events(tables), estimate_tokens, 64).warnings
    assert not any("times begin" in warning for warning in told)


@pytest.mark.parametrize(
    ("weights", "more", "said"),
    [
        ([0.0], [], "every weight is 0, so that no event counts"),
        ([1.0, 1e308], [], r"row 2 has the weight 1e\+308; give one from 0 to 1e\+12"),
        ([1.0, -2.0], [], "row 2 has the weight -2"),
        ([1e10], ["data.event_types={a: 1e10}"], r"after the filters: row 1 has the weight 1e\+20"),
    ],
)
def test_weights_of_which_none_counts_or_no_sum_holds_are_refused(weights, more, said, tmp_path):
    asked = write(tmp_path, [1_600_000_000 + n for n in range(30)], weights)
    if more:
        frame = pl.read_csv(tmp_path / "e.csv").with_columns(event=pl.lit("a"))
        frame.write_csv(tmp_path / "e.csv")
    with pytest.raises(DataError, match=said):
        prepare.load_tables(compose_data(words(asked, *more)).data)


def test_labels_need_something_that_is_not_liked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    asked = write(tmp_path, [1_600_000_000 + n for n in range(30)], ratings=[5.0, 1.0])
    run = words(
        asked,
        *("experiment=popularity", "evaluation.protocol=labels", "data.split=leave_one_out"),
        *(f"output={tmp_path / 'runs'}", "evaluation.beyond=false"),
    )
    assert compose(run)
    assert fit(run) == 2
    said = capsys.readouterr().err
    assert "protocol=labels" in said
    assert "data.positive_from" in said
    assert not list((tmp_path / "runs").glob("*/result.json"))


def test_lines_in_utf_16_are_told(tmp_path):
    text = (
        json.dumps({"user_id": "u", "business_id": "b", "date": "2020-01-01", "text": "x"}) + "\n"
    )
    (tmp_path / "r.jsonl").write_bytes(text.encode("utf-16"))
    (tmp_path / "i.jsonl").write_text('{"business_id": "b", "name": "n"}\n')
    config = jsonl.Config(str(tmp_path), "r.jsonl", "i.jsonl", rating="", item_text="{name}")
    with pytest.raises(DataError, match=r"r.jsonl holds NUL characters.*save it as UTF-8"):
        jsonl.load(config)
    (tmp_path / "r.jsonl").write_bytes(text.encode("utf-8-sig"))
    assert jsonl.load(config).interactions.height == 1


def test_a_column_that_comes_twice_is_refused(tmp_path):
    asked = write(tmp_path, [1_600_000_000 + n for n in range(30)])
    path = tmp_path / "e.csv"
    path.write_text(path.read_text().replace("user,item,time", "user,item,item"))
    with pytest.raises(DataError, match=r"e.csv has the column 'item' twice"):
        prepare.load_tables(compose_data(words(asked, "data.source.time=")).data)
    path.write_text(path.read_text().replace("item,item", "item,other"))
    with pytest.raises(ConfigError, match="no column 'time'"):
        prepare.load_tables(compose_data(words(asked)).data)
