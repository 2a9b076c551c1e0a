"""What a data set is: counts, times, texts and its split, and what may go wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.times import describe_unlikely_times, format_day
from recsys.data.splits.availability import AvailabilityWindows
from recsys.data.splits.history import CaseHistories
from recsys.data.splits.split import TEST, TRAIN, VAL, Split
from recsys.data.tables import Tables

Ints = NDArray[np.int64]
Count = Callable[[pl.Series], Ints]

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# Scripts without blanks between words are read letter by letter, as wordpiece tokenisers do.
_PIECES = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}]"
    r"|[\w&&[^\p{Han}\p{Hiragana}\p{Katakana}]]+"
    r"|[^\w\s]"
)
_ENTITY = r"&(?:[A-Za-z]{2,8}|#\d{1,6});"
_DAY_MS = 86_400_000
_EVENTS = 1_000_000  # events that are looked through at a time


@dataclass
class Description:
    """What is printed of a data set.

    Attributes:
        rows: Names and values, in order.
        warnings: Sentences.
    """

    rows: list[tuple[str, str]]
    warnings: list[str]


def estimate_tokens(texts: pl.Series) -> Ints:
    """(N,) words and signs of texts: what a wordpiece tokeniser makes at least."""
    return texts.str.count_matches(_PIECES).to_numpy().astype(np.int64)


def describe_tables(tables: Tables, events: Split, count: Count, max_tokens: int) -> Description:
    """The figures that do not depend on a split.

    Args:
        tables: Checked tables.
        events: Their events in order; roles are not read.
        count: (N,) tokens of N texts.
        max_tokens: Longest item text that training keeps.
    """
    out = Description([], [])
    _add_counts(out, tables, events)
    _add_times(out, events)
    _add_texts(out, tables, count, max_tokens)
    return out


def describe_split(split: Split, items: int) -> Description:
    """The figures of a split.

    Args:
        split: The events with their roles.
        items: Number of items in the catalog.
    """
    out = Description([], [])
    item, liked, past = split.item, split.label > 0, CaseHistories(split)
    out.rows.append(("split", split.name))
    for role, name in ((TRAIN, "train"), (VAL, "validation"), (TEST, "test")):
        here = split.role == role
        out.rows.append(
            (name, f"{_format_count(here)} events, {_format_count(here & liked)} of them liked")
        )
    trained = np.bincount(item[(split.role == TRAIN) & liked], minlength=items) > 0
    again = find_repeats(split, items)
    for role, name in ((VAL, "validation"), (TEST, "test")):
        at = split.list_cases(role)
        if not len(at):
            continue
        new, cold_users = ~trained[item[at]], past.is_cold(at)
        cold = np.unique(item[at][new])
        out.rows += [
            (f"{name}: cold items", f"{_format_share(new)} of targets, {len(cold):,} items"),
            (f"{name}: users without training", f"{_format_share(cold_users)} of targets"),
            (f"{name}: had before", f"{_format_share(again[at])} of targets"),
            (f"{name}: history before a target", _format_quantiles(past.count_events(at))),
        ]
        if split.windows is not None:
            outside = split.windows.is_unavailable(at, item[at].astype(np.int64))
            out.rows.append(
                (f"{name}: outside their window", f"{_format_share(outside)} of targets")
            )
            if outside.any():
                out.warnings.append(
                    f"{_format_count(outside)} of the {name} targets were chosen when their item "
                    "could not "
                    "be had, as available_from and available_until say: check these."
                )
        if role == TEST:
            _warn_of_cases(out, new, cold_users, again[at], split.moment is not None)
    _warn_of_ties(out, split)
    return out


def warn_of_ratings(tables: Tables, positive_from: float | None) -> list[str]:
    """A warning where ratings differ and every one of them counts as liked."""
    if positive_from is not None or "rating" not in tables.interactions.columns:
        return []
    rating = tables.interactions["rating"].to_numpy()
    least, most = float(rating.min()), float(rating.max())
    if least == most:
        return []
    return [
        f"every rating counts as liked, from {least:g} to {most:g}: data.positive_from=RATING says "
        "from which one on."
    ]


def _warn_of_cases(
    out: Description,
    cold: NDArray[np.bool_],
    new: NDArray[np.bool_],
    again: NDArray[np.bool_],
    dialogues: bool,
) -> None:
    if cold.mean() > 0.05:
        out.warnings.append(
            f"{_format_share(cold)} of the test targets are items that training never shows: read "
            "cold "
            "and warm items apart, and beware of losses that push unseen items down."
        )
    if dialogues:  # each is a user, held out whole, and what was named before is counted apart
        return
    if new.mean() > 0.5:
        out.warnings.append(
            "the test asks for cold users above all: data.split=leave_one_out asks for known ones."
        )
    if again.mean() > 0.01:
        out.warnings.append(
            f"{_format_share(again)} of the test targets were in the user's history already: with "
            "evaluation.mask_history=true no method can reach them."
        )


def _warn_of_ties(out: Description, split: Split) -> None:
    """Where a user's last two liked events share a time, file order picks the last one."""
    at = np.flatnonzero(split.label > 0)
    if split.time is None or not split.name.startswith("leave_one_out") or len(at) < 2:
        return
    user = split.compute_user_rows()[at]
    last = np.flatnonzero(np.append(user[1:] != user[:-1], True))
    last = last[(last > 0) & (user[last - 1] == user[last])]
    ties = split.time[at[last]] == split.time[at[last - 1]]
    if split.basket is not None:  # no order in the file is asked there
        own = split.basket[at[last]]
        ties &= (own < 0) | (own != split.basket[at[last - 1]])
    if len(ties) and ties.mean() > 0.1:
        out.warnings.append(
            f"for {_format_share(ties)} of the users the last two events share a time: the order "
            "in the "
            "file decides which one is the target."
        )


def _add_counts(out: Description, tables: Tables, events: Split) -> None:
    n, users, items = len(events.item), tables.users.height, tables.items.height
    per_user = np.diff(events.offsets)
    per_item = np.bincount(events.item, minlength=items)
    repeats = find_repeats(events, items)
    used = int(np.sum(per_item > 0))
    out.rows += [
        ("users", f"{users:,} ({_format_count(per_user > 0)} with interactions)"),
        ("items", f"{items:,} ({used:,} with interactions)"),
        ("interactions", f"{n:,}"),
        ("density", f"{(~repeats).sum() / (users * items):.3%} of all pairs of user and item"),
        ("events of a user", _format_quantiles(per_user[per_user > 0])),
        ("events of an item", _format_quantiles(per_item[per_item > 0])),
        (
            "repeats",
            f"{_format_share(repeats)} of interactions are with an item that the user had before",
        ),
        ("columns", ", ".join(tables.interactions.columns)),
    ]
    if events.basket is not None:
        inside = events.basket[events.basket >= 0]
        sizes = np.bincount(inside)
        quantiles = _format_quantiles(sizes[sizes > 0])
        shown = f"{_format_count(sizes > 0)}, with so many events: {quantiles}"
        out.rows.append(("baskets", shown))
    windows = AvailabilityWindows.from_items(tables.items)
    if windows is not None:
        out.rows.append(("items with a window", f"{windows.bounded:,} (available from or until)"))
    if "rating" in tables.interactions.columns:
        rating = tables.interactions["rating"].to_numpy()
        span = f"{rating.min():g} to {rating.max():g}, mean {rating.mean():.3g}"
        out.rows.append(("rating", span))
    for key, frame in (("item", tables.items), ("user", tables.users)):
        zeros = int(frame[key].str.contains(r"^0\d+$").sum())
        if zeros:
            out.warnings.append(
                f"{zeros:,} {key} ids are numbers that begin with 0: a tool that reads them as "
                "numbers loses that."
            )


def find_repeats(events: Split, items: int) -> NDArray[np.bool_]:
    """(N,) whether the user had the event's item before, and not just at the same moment."""
    again = np.zeros(len(events.item), dtype=bool)
    offsets, ends = events.offsets, np.arange(len(events.item))
    for group in (events.basket, events.moment):
        if group is not None:
            ends = np.where(group < 0, ends, np.minimum(ends, group))
    first = 0
    while first < len(offsets) - 1:  # some users at a time: sorting takes 32 bytes an event
        most = int(np.searchsorted(offsets, offsets[first] + _EVENTS, side="right")) - 1
        last = max(first + 1, most)
        start, stop = int(offsets[first]), int(offsets[last])
        pair: Ints = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1])) * items
        pair += events.item[start:stop]
        order = np.argsort(pair, kind="stable")
        pair = pair[order]
        new = np.append(True, pair[1:] != pair[:-1])
        head = start + order[np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))]
        again[start + order] = head < ends[start + order]
        first = last
    return again


def _add_times(out: Description, events: Split) -> None:
    if events.time is None:
        out.rows.append(("time", "none, an order only"))
        out.warnings.append("there are no times: a time split cannot be made of this data.")
        return
    time = events.time
    first, last = int(time.min()), int(time.max())
    starts, ends = events.offsets[:-1], events.offsets[1:]
    active = ends > starts
    spans = time[ends[active] - 1] - time[starts[active]]
    same = time[1:] == time[:-1]
    same[starts[(starts > 0) & active] - 1] = False  # the last event of the user before
    shared = np.append(same, False)
    shared[1:] |= same
    out.rows += [
        (
            "span",
            f"{format_day(first)} to {format_day(last)} ({(last - first) / _DAY_MS:,.0f} days)",
        ),
        ("span of the median user", _format_duration(float(np.median(spans)))),
        (
            "shared times",
            f"{_format_share(shared)} of interactions share it with another of the user",
        ),
    ]
    if shared.mean() > 0.1:
        drawn = "" if events.basket is None else ", and drawn within a basket"
        out.warnings.append(
            f"{_format_share(shared)} of the interactions share their time with another one of the "
            "user: "
            f"their order in a history is that of the file{drawn}."
        )
    twice = _find_duplicates(events)
    out.rows.append(
        (
            "same user, item and time",
            f"{_format_share(twice)} of interactions, {_format_count(twice)}",
        )
    )
    if twice.any():
        out.warnings.append(
            f"{_format_count(twice)} interactions have user, item and time of another one: is the "
            "file joined "
            "twice, or is it one purchase on several lines? data.repeats=first keeps one of them."
        )
    out.warnings += describe_unlikely_times(first, last)


def _find_duplicates(events: Split) -> NDArray[np.bool_]:
    """(N,) whether an event has user, item and time of an earlier one."""
    assert events.time is not None
    new = np.append(True, events.time[1:] != events.time[:-1])
    new[events.offsets[:-1][np.diff(events.offsets) > 0]] = True
    shared = np.flatnonzero(~new | ~np.append(new[1:], True))
    again = np.zeros(len(events.item), dtype=bool)
    moment = np.cumsum(new[shared])  # each moment of several events begins with a new one
    order = np.lexsort([events.item[shared], moment])
    moment, item, shared = moment[order], events.item[shared][order], shared[order]
    again[shared[1:]] = (moment[1:] == moment[:-1]) & (item[1:] == item[:-1])
    return again


def _add_texts(out: Description, tables: Tables, count: Count, max_tokens: int) -> None:
    texts = tables.items["text"]
    sizes = count(texts)
    twice = texts.is_duplicated().to_numpy()
    entities = int(texts.str.contains(_ENTITY).sum())
    long = sizes > max_tokens
    unit, more, least = "tokens", "", ""
    if count is estimate_tokens:
        unit, least = "words and signs", "at least "
        more = f" ({least}so many tokens; encoder=MODEL counts tokens)"
    out.rows += [
        (f"{unit} of an item", f"{_format_quantiles(sizes)}, mean {sizes.mean():.1f}{more}"),
        (
            "longer than data.max_tokens",
            f"{least}{_format_share(long)} of items ({max_tokens} tokens)",
        ),
        ("same text as another", f"{_format_share(twice)} of items"),
    ]
    profiles = tables.users["text"].fill_null("")
    known = profiles.filter(profiles != "")
    out.rows.append(("users with a text", f"{len(known):,} of {len(profiles):,}"))
    if len(known):
        out.rows.append((f"{unit} of a user", f"{_format_quantiles(count(known))}{more}"))
    if twice.mean() > 0.01:
        out.warnings.append(
            f"{_format_share(twice)} of the items have the same text as another: a method that "
            "reads text "
            "only cannot tell them apart."
        )
    if entities:
        out.warnings.append(f"{entities:,} item texts hold HTML entities, such as &amp;.")
    if long.mean() > 0.1:
        out.warnings.append(
            f"{least}{_format_share(long)} of the item texts are cut at "
            f"data.max_tokens={max_tokens}."
        )


def _format_count(mask: NDArray[np.bool_]) -> str:
    return f"{int(mask.sum()):,}"


def _format_share(mask: NDArray[np.bool_]) -> str:
    return f"{float(mask.mean()) if len(mask) else 0.0:.1%}"


def _format_quantiles(values: NDArray[np.integer]) -> str:
    """Least, quarters, nine tenths and most."""
    if not len(values):
        return "none"
    least, low, middle, high, most, last = np.quantile(values, _SHARES, method="inverted_cdf")
    return f"{least:,} / {low:,} / {middle:,} / {high:,} / {most:,} / {last:,}"


def _format_duration(ms: float) -> str:
    for size, name in ((_DAY_MS, "days"), (3_600_000, "hours"), (60_000, "minutes")):
        if ms >= size:
            return f"{ms / size:,.1f} {name}"
    return f"{ms / 1000:,.1f} seconds"
