"""Pure functions from interactions to train, validation and test.

Events are rows, sorted by user, then time, then file order. A case is a target event with label 1
in validation or test; its history is every earlier event of the same user, but for those of its own
impression or basket. Roles never fall along a user's events, so that no training history holds a
validation or test event. The events of a basket at one moment have an order that is drawn.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.splits.availability import AvailabilityWindows
from recsys.data.splits.baskets import (
    compute_basket_order,
    describe_baskets,
    find_basket_ids,
    find_first_events,
    find_moments,
    find_target_flags,
)
from recsys.data.splits.split import TEST, TRAIN, VAL, Split
from recsys.data.tables import IdMap, Tables
from recsys.errors import ConfigError, DataError

_ROLES = {"train": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2}
Method = Literal["leave_one_out", "random", "time", "given"]
_SORTED = 0.95  # share of steps in one direction of the catalog that no choice of users makes


def _sort_events(
    tables: Tables, positive_from: float | None, role: NDArray[np.int8] | None = None
) -> tuple[Split, NDArray[np.int64]]:
    """All events as training events, sorted, and the file row of each.

    A given role comes between time and file order: among equal times it is the only order known.
    """
    frame = tables.interactions
    # A column at a time, and none in two orders for longer than it takes: millions of rows.
    users = IdMap(tables.users["user"].to_list(), "user").get_rows(frame["user"]).astype(np.int32)
    counts = np.bincount(users, minlength=tables.users.height)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    time = None
    if "time" in frame.columns:
        time = frame["time"].to_numpy().astype(np.int64, copy=False)
    keys = [key for key in (role, time, users) if key is not None]
    # lexsort is stable and sorts by its last key first: file order decides what is left.
    order = np.lexsort(keys).astype(np.int64, copy=False)
    del users
    items = IdMap(tables.items["item"].to_list(), "item").get_rows(frame["item"]).astype(np.int32)
    item = items[order]
    del items
    users_at = offsets[:-1][counts > 0]
    sorted_time = None if time is None else time[order]
    baskets = find_basket_ids(frame)
    if baskets is not None:
        changing = (sorted_time, None if role is None else role[order])
        moments = find_moments(users_at, len(order), changing)
        places = compute_basket_order(baskets, tables.items["item"], item, order, moments)
        order, item = order[places], item[places]
    label = np.ones(len(order), dtype=np.float32)
    if positive_from is not None:
        if "rating" not in frame.columns:
            raise ConfigError(
                f"positive_from={positive_from} needs ratings, and the interactions have none; "
                "set it to null or name the rating column."
            )
        label = (frame["rating"].to_numpy() >= positive_from)[order].astype(np.float32)
    targets = find_target_flags(frame)
    weight = np.ones(len(order), dtype=np.float32)
    if "weight" in frame.columns:
        weight = frame["weight"].to_numpy()[order].astype(np.float32)
    split = Split(
        offsets=offsets,
        item=item,
        time=sorted_time,
        label=label,
        weight=weight,
        role=np.zeros(len(order), dtype=np.int8) if role is None else role[order],
        name="all",
        row=order,
        shown=find_first_events(frame["impression"], users_at, order)
        if "impression" in frame.columns
        else None,
        basket=None if baskets is None else find_first_events(baskets, users_at, order),
        moment=find_first_events(frame["moment"], users_at, order)
        if "moment" in frame.columns
        else None,
        target=None if targets is None else targets.to_numpy()[order],
        windows=None
        if sorted_time is None
        else AvailabilityWindows.from_items(tables.items, sorted_time),
    )
    return split, order


def collect_events(tables: Tables) -> Split:
    """All events in their order, as training events with label 1: a data set before any split."""
    return _sort_events(tables, None)[0]


def _assign_roles(
    split: Split, role: NDArray[np.int8], name: str, notes: tuple[str, ...], *, allow_empty: bool
) -> Split:
    """The split with other roles, once each part has what it needs.

    Raises:
        ConfigError: Training, validation or test holds no positive event.
    """
    if split.basket is not None:
        name = f"{name.removesuffix(')')}, baskets)"
    out = dataclasses.replace(split, role=role, name=name, notes=notes)
    out = dataclasses.replace(out, notes=(*notes, *describe_baskets(out)))
    needed = {"test": TEST} if allow_empty else {"train": TRAIN, "validation": VAL, "test": TEST}
    for part, number in needed.items():
        if not len(out.list_cases(number)):
            raise ConfigError(
                f"Split {name} leaves no positive event for {part}; choose another split, other "
                "fractions or a lower positive_from."
            )
    return out


def leave_one_out(tables: Tables, positive_from: float | None = None) -> Split:
    """Each user's last positive event is the test target, the one before it the validation target.

    Users with fewer than 3 positive events are training data only; `notes` counts them. A negative
    event is never a target; one after the validation (test) target counts as validation (test), so
    that training sees no later event of the user. Without times, file order is the order.

    Args:
        tables: Checked tables.
        positive_from: Lowest rating with label 1; None: every event has label 1.

    Raises:
        ConfigError: positive_from without ratings, or no user has 3 positive events.
    """
    split, _ = _sort_events(tables, positive_from)
    role, few = _hold_out_last_two(split)
    notes = (
        *_describe_missing_times(split),
        "leave_one_out: training sees other users' events that are later than a test target.",
        *_describe_train_only("leave_one_out", few),
    )
    name = f"leave_one_out(positive_from={positive_from})"
    return _assign_roles(split, role, name, notes, allow_empty=False)


def split_at_random(tables: Tables, positive_from: float | None = None, seed: int = 0) -> Split:
    """One positive event of each user at random is the test target, another the validation target.

    For data without times, or whose times mean nothing: each user's events are put in an order that
    is drawn, and the last two positive ones are held out as `leave_one_out` does it. The history of
    a target is the rest of the user's events, of a test target with the validation target; none
    that is held out is in the history of a training query. What comes before what cannot be said,
    so that the split has no times, and its figures say nothing about recommending what comes next.

    Args:
        tables: Checked tables.
        positive_from: Lowest rating with label 1; None: every event has label 1.
        seed: Of the order; the same for every method.

    Raises:
        ConfigError: The events have baskets or impressions, which are what belongs together in
            time; or as `leave_one_out`.
    """
    split, _ = _sort_events(tables, positive_from)
    for column, first in (
        ("basket", split.basket),
        ("impression", split.shown),
        ("moment", split.moment),
    ):
        if first is not None:
            raise ConfigError(
                f"data.split=random draws an order of single events, and these have the column "
                f"'{column}', which holds some together; use data.split=leave_one_out."
            )
    order = np.lexsort(
        (np.random.default_rng(seed).random(len(split.item)), split.compute_user_rows())
    )
    assert split.row is not None
    split = dataclasses.replace(
        split,
        item=split.item[order],
        label=split.label[order],
        weight=split.weight[order],
        row=split.row[order],
        time=None,
        windows=None,
    )
    role, few = _hold_out_last_two(split)
    notes = (
        "random: targets and the order of histories are drawn, so that nothing can be said about "
        "time, neither about what comes next nor about new items.",
        *_describe_train_only("random", few),
    )
    name = f"random(positive_from={positive_from}, seed={seed})"
    return _assign_roles(split, role, name, notes, allow_empty=False)


def _hold_out_last_two(split: Split) -> tuple[NDArray[np.int8], int]:
    """(N,) roles that hold out each user's last two positive events, and how many have too few.

    A negative event after one of them has its role, so that training sees nothing later.
    """
    user = split.compute_user_rows()
    positive = np.flatnonzero((split.label > 0) & split.is_target())
    counts = np.bincount(user[positive], minlength=len(split.offsets) - 1)
    ends = np.cumsum(counts)
    # Two are held out, and a third must come before them, for them to be predicted from.
    chosen = np.flatnonzero(counts >= 3)
    first_val = np.full(len(counts), len(user), dtype=np.int64)
    first_test = first_val.copy()
    first_val[chosen] = positive[ends[chosen] - 2]
    first_test[chosen] = positive[ends[chosen] - 1]
    event = np.arange(len(user))
    role = (event >= first_val[user]).astype(np.int8) + (event >= first_test[user]).astype(np.int8)
    return role.astype(np.int8), int(np.sum((counts < 3) & (np.diff(split.offsets) > 0)))


def _describe_train_only(method: str, few: int) -> tuple[str, ...]:
    """What becomes of users with too few positive events, where there are such."""
    if not few:
        return ()
    some, train = ("1 user has", "trains") if few == 1 else (f"{few} users have", "train")
    return (f"{method}: {some} fewer than 3 positive events and only {train}.",)


def _describe_missing_times(split: Split) -> tuple[str, ...]:
    """What it means to hold out the last event where only the file says which one is the last."""
    if split.time is not None:
        return ()
    other = "data.split=random holds out events at random"
    step = np.diff(split.item)
    # A step from one user's last event to the next user's first says nothing of an order.
    starts = split.offsets[1:-1]
    step = np.delete(step, starts[(starts > 0) & (starts < len(split.item))] - 1)
    rising = float(np.mean(step > 0)) if len(step) else 0.5
    if len(step) >= 20 and not 1 - _SORTED < rising < _SORTED:
        share = max(rising, 1 - rising)
        return (
            "leave_one_out: there are no times, and the file is sorted by item, not by time (for "
            f"{share:.0%} of the events the user's next one is with an item further "
            f"{'down' if rising > 0.5 else 'up'} the catalog): every target is an item of its end; "
            f"{other}.",
        )
    return (
        "leave_one_out: there are no times, so that the order in the file stands for it: a target "
        f"is what comes last there. Where that is not the order of events, {other}.",
    )


def split_by_time(
    tables: Tables,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    positive_from: float | None = None,
) -> Split:
    """Cuts at two moments: the model is frozen at the first, all later events are val or test.

    The cuts are the times of the events at the quantiles 1 - val - test and 1 - test; an event at
    a cut belongs to the later part.

    Raises:
        ConfigError: No times, fractions outside (0, 1), or a part without a positive event.
    """
    if "time" not in tables.interactions.columns:
        raise ConfigError(
            "A time split needs times, and the interactions have only an order; "
            "use data.split=leave_one_out (the last in the file) or data.split=random, or name the "
            "time column."
        )
    if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
        raise ConfigError(
            f"val_fraction={val_fraction} and test_fraction={test_fraction} must be above 0 and "
            "add up to less than 1."
        )
    split, _ = _sort_events(tables, positive_from)
    assert split.time is not None
    ranked = np.sort(split.time)
    # Rounding first keeps 1 - 0.1 - 0.1 from landing one event below 0.8.
    val_at, test_at = (
        ranked[min(int(round(len(ranked) * (1 - part), 6)), len(ranked) - 1)]
        for part in (val_fraction + test_fraction, test_fraction)
    )
    role = (split.time >= val_at).astype(np.int8) + (split.time >= test_at).astype(np.int8)
    user = split.compute_user_rows()
    targets = user[(role == TEST) & (split.label > 0)]
    cold = int(np.sum(~np.isin(targets, user[role == TRAIN])))
    notes = (f"time: {cold} of {len(targets)} test targets belong to users without training data.",)
    name = f"time(val={val_fraction}, test={test_fraction}, positive_from={positive_from})"
    return _assign_roles(split, role.astype(np.int8), name, notes, allow_empty=False)


def split_by_column(tables: Tables, column: str, positive_from: float | None = None) -> Split:
    """Takes the parts from a column with train, val (valid, validation, dev) and test.

    Among equal times, and where there are none, train comes before val before test, then file
    order.

    Raises:
        ConfigError: The column is missing, or no event is a test target.
        DataError: An unknown part, or a user whose training event is later than a test event.
    """
    frame = tables.interactions
    if column not in frame.columns:
        raise ConfigError(
            f"Split given: the interactions have no column '{column}' "
            f"(there are: {', '.join(frame.columns)})."
        )
    named = frame[column]
    if named.dtype not in (pl.String, pl.Enum, pl.Categorical):
        named = named.cast(pl.String)
    words = named.unique().cast(pl.String)
    roles = words.str.strip_chars().str.to_lowercase()
    roles = roles.replace_strict(_ROLES, default=None, return_dtype=pl.Int8)
    parts = named.replace_strict(words, roles, default=None, return_dtype=pl.Int8)
    if parts.null_count():
        row = int(parts.is_null().arg_true()[0])
        raise DataError(
            f"Split given: row {row + 1} of column '{column}' holds '{frame[column][row]}'; "
            "use train, val or test."
        )
    split, order = _sort_events(tables, positive_from, parts.to_numpy().astype(np.int8))
    falls = np.flatnonzero(np.diff(split.role) < 0)
    falls = falls[~np.isin(falls + 1, split.offsets)]
    if len(falls):
        row = int(order[falls[0] + 1])
        raise DataError(
            f"Split given: row {row + 1} (user '{frame['user'][row]}', item "
            f"'{frame['item'][row]}') is {frame[column][row]} but later than an event held back "
            "from the same user, so training would see it; split each user's events in time order."
        )
    name = f"given({column}, positive_from={positive_from})"
    return _assign_roles(split, split.role, name, (), allow_empty=True)


def make_split(
    tables: Tables,
    method: Method,
    *,
    positive_from: float | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    column: str = "split",
    seed: int = 0,
) -> Split:
    """The split of the name; each method reads only its own settings.

    Raises:
        ConfigError: The method is unknown, or as the method itself says.
        DataError: As the method itself says.
    """
    if method == "leave_one_out":
        return leave_one_out(tables, positive_from)
    if method == "random":
        return split_at_random(tables, positive_from, seed)
    if method == "time":
        return split_by_time(tables, val_fraction, test_fraction, positive_from)
    if method == "given":
        return split_by_column(tables, column, positive_from)
    raise ConfigError(f"Unknown split '{method}'; use leave_one_out, random, time or given.")
