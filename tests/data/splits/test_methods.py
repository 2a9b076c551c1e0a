"""Splits against a slow oracle written from the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume
from hypothesis import given as for_all
from hypothesis import strategies as st

from recsys.data.splits.methods import leave_one_out, make_split, split_by_column, split_by_time
from recsys.data.splits.split import Split
from recsys.data.tables import Tables
from recsys.errors import ConfigError, DataError

Event = tuple[int, int, int, int]  # user, item, time, rating
EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 8), st.integers(1, 5)),
    min_size=5,
    max_size=60,
)


def tables(events: list[Event], **more: list[Any]) -> Tables:
    frame = pl.DataFrame(
        {
            "user": [f"u{e[0]}" for e in events],
            "item": [f"i{e[1]}" for e in events],
            "time": [e[2] for e in events],
            "rating": [float(e[3]) for e in events],
            **more,
        }
    )
    return Tables(
        frame,
        pl.DataFrame({"item": [f"i{i}" for i in range(7)], "text": ["x"] * 7}),
        pl.DataFrame({"user": [f"u{u}" for u in range(5)], "text": [""] * 5}),
    )


def plain(split: Split) -> list[tuple[int, int, int, int, int]]:
    """Rows (user, item, time, label, role) in event order."""
    assert split.time is not None
    columns = (split.compute_user_rows(), split.item, split.time, split.label, split.role)
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]  # type: ignore[misc]


def ordered(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda e: (e[0], e[2]))  # sorted is stable: ties by file order


@for_all(EVENTS)
def test_leave_one_out_is_its_definition(events: list[Event]) -> None:
    want, tests, few = [], 0, 0
    for user in range(5):
        own = [e for e in ordered(events) if e[0] == user]
        likes = [n for n, e in enumerate(own) if e[3] >= 3]
        few += bool(own) and len(likes) < 3
        tests += len(likes) >= 3
        for n, e in enumerate(own):
            role = 0
            if len(likes) >= 3:
                role = 2 if n >= likes[-1] else 1 if n >= likes[-2] else 0
            want.append((user, e[1], e[2], int(e[3] >= 3), role))
    if not tests:
        with pytest.raises(ConfigError, match="no positive event"):
            leave_one_out(tables(events), 3)
        return
    split = leave_one_out(tables(events), 3)
    assert plain(split) == want
    assert len(split.list_cases(1)) == len(split.list_cases(2)) == tests
    some = "1 user has" if few == 1 else f"{few} users have"
    told = [note for note in split.notes if "fewer than 3 positive events" in note]
    assert [note.startswith(f"leave_one_out: {some} fewer") for note in told] == [True] * (few > 0)


@for_all(EVENTS)
def test_time_split_is_its_definition(events: list[Event]) -> None:
    times = sorted(e[2] for e in events)
    val_at, test_at = (times[round(len(times) * f, 6).__floor__()] for f in (0.6, 0.8))
    want = [
        (e[0], e[1], e[2], 1, int(e[2] >= val_at) + int(e[2] >= test_at)) for e in ordered(events)
    ]
    assume({r[4] for r in want} == {0, 1, 2})
    split = split_by_time(tables(events), 0.2, 0.2)
    assert plain(split) == want
    assert split.time is not None
    # Frozen at the cut: nothing trained on is as late as anything held back, for any user.
    assert split.time[split.role == 0].max() < split.time[split.role > 0].min()
    assert split.time[split.role < 2].max() < split.time[split.role == 2].min()


@for_all(EVENTS, st.sampled_from(["leave_one_out", "time"]))
def test_no_later_event_is_ever_in_a_history(events: list[Event], method: Any) -> None:
    try:
        split = make_split(tables(events, weight=[float(n) for n in range(len(events))]), method)
    except ConfigError:
        return
    assert split.time is not None
    user = split.compute_user_rows()
    for role in (0, 1, 2):
        for case in split.list_cases(role):
            past = split.slice_history(int(case))
            assert (user[past] == user[case]).all()
            assert (split.role[past] <= role).all()
            # `weight` carries the file row here: ties are decided by it.
            keys = list(zip(split.time[past], split.weight[past], strict=True))
            assert all(k < (split.time[case], split.weight[case]) for k in keys)
            earlier = sum(e[0] == user[case] and e[2] < split.time[case] for e in events)
            assert len(keys) >= earlier  # and none of the earlier ones is missing


def test_types_and_users_without_events() -> None:
    split = leave_one_out(tables([(1, n, n, 5) for n in range(4)]))
    assert split.offsets.tolist() == [0, 0, 4, 4, 4, 4]
    got = [a.dtype for a in (split.offsets, split.item, split.label, split.weight, split.role)]
    assert got == [np.int64, np.int32, np.float32, np.float32, np.int8]
    assert split.role.tolist() == [0, 0, 1, 2]


def test_without_times_file_order_is_the_order() -> None:
    t = tables([(0, 3, 9, 5), (0, 2, 1, 5), (1, 0, 0, 1), (0, 5, 4, 5)])
    t = Tables(t.interactions.drop("time"), t.items, t.users)
    split = leave_one_out(t)
    assert split.time is None
    assert split.item.tolist() == [3, 2, 5, 0]
    with pytest.raises(ConfigError, match="time split needs times"):
        make_split(t, "time")


def test_a_positive_threshold_needs_ratings() -> None:
    t = tables([(0, n, n, 5) for n in range(4)])
    t = Tables(t.interactions.drop("rating"), t.items, t.users)
    with pytest.raises(ConfigError, match="needs ratings"):
        leave_one_out(t, 4)


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.1), (0.5, 0.5), (0.1, -0.1)])
def test_fractions_must_leave_something(val: float, test: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        split_by_time(tables([(0, 0, n, 5) for n in range(9)]), val, test)


def test_given_takes_the_column_and_breaks_ties_by_part() -> None:
    events = [(0, 1, 5, 5), (0, 2, 5, 5), (0, 3, 1, 5), (1, 4, 0, 5)]
    split = split_by_column(tables(events, part=["test", "valid", "train", "Train"]), "part")
    assert split.item.tolist() == [3, 2, 1, 4]
    assert split.role.tolist() == [0, 1, 2, 0]


def test_given_refuses_what_would_leak() -> None:
    events = [(0, 1, 5, 5), (0, 2, 6, 5)]
    with pytest.raises(DataError, match=r"row 2 \(user 'u0', item 'i2'\) is train but later"):
        split_by_column(tables(events, part=["test", "train"]), "part")
    with pytest.raises(DataError, match="row 1 of column 'part' holds 'tset'"):
        split_by_column(tables(events, part=["tset", "train"]), "part")
    for parts in ([True, False], [0, 1], [None, "train"]):
        with pytest.raises(DataError, match="row 1 of column 'part'"):
            split_by_column(tables(events, part=parts), "part")
    with pytest.raises(ConfigError, match="no column 'fold'"):
        split_by_column(tables(events), "fold")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown split 'shuffled'"):
        make_split(tables([(0, 0, 0, 5)]), "shuffled")  # type: ignore[arg-type]
