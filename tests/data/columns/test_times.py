"""Data without times: what file order means is said, and held-out events can be drawn instead."""

import numpy as np
import polars as pl
import pytest

from recsys.config.compose import compose_data
from recsys.data import prepare
from recsys.data.__main__ import main
from recsys.data.splits.methods import leave_one_out, make_split, split_at_random
from recsys.data.splits.split import TEST, TRAIN, VAL
from recsys.data.tables import Tables
from recsys.errors import ConfigError

USERS, ITEMS = 400, 40


def jokes(ordered=True, rated=False):
    """Every user rated ten of 40 items; the file is sorted by item."""
    rng = np.random.default_rng(7)
    rows = [(u, i) for u in range(USERS) for i in rng.choice(ITEMS, 10, replace=False)]
    rows = sorted(rows, key=lambda row: row[1]) if ordered else rng.permutation(rows).tolist()
    events = pl.DataFrame(
        {"user": [f"u{u}" for u, _ in rows], "item": [f"i{i:02d}" for _, i in rows]}
    )
    if rated:
        events = events.with_columns(rating=pl.Series(rng.integers(1, 6, len(rows)) * 1.0))
    return Tables(
        events,
        pl.DataFrame({"item": [f"i{i:02d}" for i in range(ITEMS)], "text": ["x"] * ITEMS}),
        pl.DataFrame({"user": [f"u{u}" for u in range(USERS)], "text": [""] * USERS}),
    )


@pytest.mark.parametrize("positive_from", [None, 4.0])
def test_one_event_of_each_user_is_drawn_and_the_rest_is_its_history(positive_from):
    tables = jokes(rated=True)
    split = split_at_random(tables, positive_from, seed=3)
    user, names = split.compute_user_rows(), tables.items["item"].to_list()
    given = tables.interactions
    for field, want in (
        ("user", [f"u{u}" for u in user]),
        ("item", [names[i] for i in split.item]),
    ):
        assert given[field].gather(split.row).to_list() == want
    liked = np.ones(given.height) if positive_from is None else (given["rating"] >= 4).to_numpy()
    assert np.array_equal(split.label, liked[split.row])
    able = np.bincount(user[split.label > 0], minlength=USERS) >= 3
    for role in (VAL, TEST):
        assert np.bincount(user[split.list_cases(role)], minlength=USERS).tolist() == able.tolist()
    for case in split.list_cases(TEST):
        before = split.slice_history(int(case))
        assert (before.start, before.stop) == (split.offsets[user[case]], case)
        assert TEST not in split.role[before]
    for case in split.list_cases(TRAIN):
        assert (split.role[split.slice_history(int(case))] == TRAIN).all()
    assert split.time is None
    assert split.windows is None


def test_targets_are_uniform_where_the_file_is_sorted_by_item():
    """The last in the file is a late item; one at random is any of them."""
    tables = jokes()
    late = leave_one_out(tables)
    assert late.item[late.list_cases(TEST)].mean() > 34
    even = split_at_random(tables)
    for role in (VAL, TEST):
        mean = even.item[even.list_cases(role)].mean()
        assert abs(mean - (ITEMS - 1) / 2) < 4 * 11.5 / USERS**0.5
    queries = even.item[
        np.unique(even.compute_user_rows(), return_index=True)[1]
    ]  # first of each history
    assert abs(queries.mean() - (ITEMS - 1) / 2) < 4 * 11.5 / USERS**0.5


def test_the_seed_of_the_sample_decides_and_nothing_else():
    tables = jokes()
    one, same, other = (make_split(tables, "random", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.row, same.row)
    assert not np.array_equal(one.row, other.row)
    assert one.name == "random(positive_from=None, seed=1)"


def test_times_play_no_part_in_a_random_split():
    tables = jokes()
    timed = tables.interactions.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int64))
    with_times = split_at_random(Tables(timed, tables.items, tables.users))
    assert with_times.time is None
    assert "nothing can be said about time" in " ".join(with_times.notes)


def test_what_belongs_together_in_time_is_refused():
    tables = jokes()
    events = tables.interactions.with_columns(basket=pl.lit("b"))
    with pytest.raises(ConfigError, match=r"data.split=random .* 'basket'"):
        split_at_random(Tables(events, tables.items, tables.users))


@pytest.mark.parametrize(
    ("ordered", "said"),
    [(True, "the file is sorted by item, not by time"), (False, "the order in the file stands")],
)
def test_file_order_taken_for_time_is_told(ordered, said):
    (note,) = [n for n in leave_one_out(jokes(ordered)).notes if "no times" in n]
    assert said in note
    assert "data.split=random" in note
    timed = jokes(ordered)
    events = timed.interactions.with_columns(time=pl.int_range(pl.len(), dtype=pl.Int64))
    told = leave_one_out(Tables(events, timed.items, timed.users)).notes
    assert not any("no times" in note for note in told)


@pytest.fixture
def words(tmp_path):
    tables = jokes()
    tables.interactions.write_csv(tmp_path / "e.csv")
    tables.items.write_csv(tmp_path / "i.csv")
    return [
        f"interactions={tmp_path / 'e.csv'}",
        f"items={tmp_path / 'i.csv'}",
        "time=",
        "item_text='{text} {item}'",
    ]


def test_the_command_and_a_run_say_so(words, capsys):
    assert main(["source=tables", *words, "split=leave_one_out"]) == 0
    assert "note: leave_one_out: there are no times, and the file is sorted" in (
        capsys.readouterr().out
    )
    run = compose_data(
        ["data.source=tables", *(f"data.source.{w}" for w in words), "data.split=random"]
    )
    _, split = prepare.prepare_data(run.data)
    assert any(note.startswith("random: ") for note in split.notes)
