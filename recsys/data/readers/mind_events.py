"""From lines with a history and an impression to single events, as MIND's files need it.

Histories have no times. A click of one lies before the impression that first tells of it: one
millisecond apart from the next, as near to the impression as that allows. It belongs to the part
that its user had reached by then, so that a history never makes a held-out target of what every
method may see.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.data.readers import tabular
from recsys.data.readers.jsonl import describe_unreadable
from recsys.data.readers.mind_behaviors import Impressions
from recsys.errors import DataError

_ROLES = {"train": 0, "val": 1, "test": 2}
_PIECE = 100_000  # lists whose indices are in memory at a time

_Value = TypeVar("_Value", bound=np.generic)


def read_translations(path: Path) -> pl.DataFrame:
    """Item, title and abstract of an xMIND file: .tsv, .tsv.gz or the .zip it comes in.

    Raises:
        DataError: It is missing, damaged, or lacks a column.
    """
    if path.suffix == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.endswith("news.tsv")]
                if len(inside) != 1:
                    raise DataError(f"{path} holds {len(inside)} files news.tsv; give one of them.")
                text = archive.read(inside[0]).decode("utf-8-sig")
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise DataError(describe_unreadable(path, error)) from error
    else:
        text = tabular.read_file_text(path)
    rows = [line.split("\t") for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    head, body = rows[0] if rows else [], rows[1:]
    if head[:3] != ["nid", "title", "abstract"]:
        raise DataError(f"{path} does not begin with the columns nid, title, abstract.")
    schema = {"item": pl.String, "title": pl.String, "abstract": pl.String}
    cells = [(row[0], row[1] if len(row) > 1 else "", " ".join(row[2:])) for row in body]
    frame = pl.DataFrame(cells, schema=schema, orient="row")
    return frame.unique("item", keep="first", maintain_order=True)


def assign_parts(found: Impressions, held_out: float) -> tuple[Impressions, tuple[str, ...]]:
    """Decides what is trained on, validated and tested.

    Args:
        found: The impressions with labels, of all parts.
        held_out: Share of training impressions, the latest, for each part that is missing.

    Returns:
        The impressions, whose frame has a `split`; and what was decided.

    Raises:
        ConfigError: `held_out` leaves nothing to train on, or holds nothing out.
        DataError: The training part has no labels.
    """
    notes = []
    labelled = found.frame
    if found.unlabelled:
        notes.append(f"mind: {found.unlabelled} impressions have no labels: left out.")
    there = set(labelled["part"].unique())
    if "train" not in there:
        raise DataError(
            "mind: no impression of the training part has labels (-1 or -0 at the end of each news "
            "item shown); set data.source.path to the folder of MINDsmall_train or MINDlarge_train."
        )
    split = pl.col("part")
    if "test" not in there and "val" in there:
        notes.append("mind: there is no test part with labels; dev is the test part.")
        split = split.replace("val", "test")
        there = {*(there - {"val"}), "test"}
    labelled = labelled.with_columns(split.alias("split"))
    missing = [part for part in ("val", "test") if part not in there]
    tabular.check_share(held_out, missing)
    if missing:
        time = np.sort(labelled.filter(split="train")["time"].to_numpy())
        train = pl.lit("train")
        for place, part in enumerate(missing):
            share = held_out * (len(missing) - place)
            cut = time[min(int(round(len(time) * (1 - share), 6)), len(time) - 1)]
            train = pl.when(pl.col("time") >= int(cut)).then(pl.lit(part)).otherwise(train)
        labelled = labelled.with_columns(
            pl.when(split="train").then(train).otherwise("split").alias("split")
        )
        notes.append(
            f"mind: the latest {held_out:g} of the training impressions are the part for "
            f"{' and as many for '.join(missing)}."
        )
    return dataclasses.replace(found, frame=labelled), tuple(notes)


class _HistoryClicks(NamedTuple):
    """Clicks that only histories tell of, sorted by user and time.

    Attributes:
        row: (M,) impression that first tells of each.
        news: (M,) rows of the news.
        time: (M,) ms.
        role: (M,) the part that the user had reached.
    """

    row: npt.NDArray[np.int32]
    news: npt.NDArray[np.int32]
    time: Ints
    role: npt.NDArray[np.int8]


def _gather_lists(values: npt.NDArray[_Value], at: Ints, sizes: Ints) -> npt.NDArray[_Value]:
    """The elements `at` .. `at + sizes` of all lists in a row; indices for some at a time."""
    ends = np.cumsum(sizes)
    out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=values.dtype)
    for start in range(0, len(at), _PIECE):
        part = slice(start, start + _PIECE)
        owner, place = expand_sizes(sizes[part])
        first = int(ends[start] - sizes[start])
        out[first : first + len(owner)] = values[at[part][owner] + place]
    return out


def _find_changed(new: npt.NDArray[np.bool_], told: npt.NDArray[np.int32], sizes: Ints) -> Ints:
    """Rows whose history is another than that of the user's impression before.

    Args:
        new: (S,) whether an impression is the first of its user.
        told: (sum of sizes,) histories in the order of the impressions.
        sizes: (S,) their lengths.
    """
    at = np.cumsum(sizes) - sizes
    other = ~new
    other[1:] &= sizes[1:] != sizes[:-1]
    alike = np.flatnonzero(~new & ~other)
    for start in range(0, len(alike), _PIECE):
        rows = alike[start : start + _PIECE]
        owner, place = expand_sizes(sizes[rows])
        differ = told[at[rows][owner] + place] != told[at[rows - 1][owner] + place]
        other[rows[owner[differ]]] = True
    return np.flatnonzero(other)


def _find_additions(
    frame: pl.DataFrame, told: npt.NDArray[np.int32], found: Impressions, new: Ints, changed: Ints
) -> dict[int, tuple[list[int], int, int]]:
    """Row to the clicks that a changed history adds, the time before it, and the part reached.

    A click counts as often as a history holds it; what an impression showed and the user clicked
    is known already when a later history tells of it.

    Args:
        frame: The impressions, as `make_events` sorts them.
        told: Their histories, in that order.
        found: Where the candidates stand.
        new: First impression of each user.
        changed: Rows whose history is another than the one before.
    """
    sizes, role, time = (frame[name].to_numpy() for name in ("told", "role", "time"))
    ends = np.cumsum(sizes)
    begin, size = (frame[name].to_numpy() for name in ("begin", "size"))
    begins = np.append(new, frame.height)
    adds: dict[int, tuple[list[int], int, int]] = {}
    turns = set(changed.tolist())
    for user in np.unique(np.searchsorted(new, changed, side="right") - 1).tolist():
        known: Counter[int] = Counter()
        reached = before = 0
        for row in range(int(begins[user]), int(begins[user + 1])):
            first = row == begins[user]
            if first or row in turns:
                history = told[ends[row] - sizes[row] : ends[row]].tolist()
                left, fresh = known.copy(), []
                for news in history:
                    if left[news] > 0:
                        left[news] -= 1
                    else:
                        fresh.append(news)
                if not first:
                    adds[row] = fresh, before, reached
                known.update(fresh)
            shown = slice(begin[row], begin[row] + size[row])
            known.update(found.shown[shown][found.clicked[shown]].tolist())
            reached, before = max(reached, int(role[row])), int(time[row])
    return adds


def _make_history_clicks(frame: pl.DataFrame, found: Impressions) -> _HistoryClicks:
    """The clicks that only histories tell of, in their order.

    A history is the same in all of a user's impressions of a part, so that nearly all clicks are
    those of a user's first impression.

    Args:
        frame: The impressions, as `make_events` sorts them.
        found: Their histories and candidates.
    """
    sizes = frame["told"].to_numpy()
    told = _gather_lists(found.told, frame["past"].to_numpy(), sizes)
    new = (frame["user"] != frame["user"].shift(1)).fill_null(True).to_numpy()
    changed = _find_changed(new, told, sizes)
    adds = _find_additions(frame, told, found, np.flatnonzero(new), changed)
    counts = np.where(new, sizes, 0)
    before, role = np.zeros_like(counts), np.zeros(len(counts), dtype=np.int8)
    for row, (fresh, earlier, reached) in adds.items():
        counts[row], before[row], role[row] = len(fresh), earlier, reached
    # The first histories stay where they are; what later ones add takes the place of the rest.
    keep = np.repeat(new, sizes)
    ends = np.cumsum(sizes)
    for row, (fresh, _, _) in adds.items():
        at = int(ends[row] - sizes[row])
        told[at : at + len(fresh)] = fresh
        keep[at : at + len(fresh)] = True
    owner, place = expand_sizes(counts)
    time = frame["time"].to_numpy()
    moment = np.maximum(before[owner], (time - counts)[owner] + place)
    return _HistoryClicks(owner.astype(np.int32), told[keep], moment, role[owner])


def _select_usable(found: Impressions, need_history: bool) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The impressions that can be ranked, sorted by user and time, and what was left out."""
    frame, notes = found.frame, []
    rows = len(found.shown)
    if rows < found.candidates:
        notes.append(
            f"mind: {found.candidates - rows} of {found.candidates} candidates are news without a "
            "description: left out."
        )
    frame = frame.with_columns(
        (pl.col("told").cum_sum() - pl.col("told")).alias("past"),
        (pl.col("size").cum_sum() - pl.col("size")).alias("begin"),
        pl.col("split").replace_strict(_ROLES, return_dtype=pl.Int8).alias("role"),
    )
    able = (pl.col("clicks") > 0) & (pl.col("clicks") < pl.col("size"))
    kept = frame.filter(able & (pl.col("told") > 0) if need_history else able)
    if kept.height < frame.height:
        why = ", or no history" if need_history else ""
        notes.append(
            f"mind: {frame.height - kept.height} of {frame.height} impressions are left without "
            f"a click, or without anything else{why}: left out."
        )
    return kept.sort("user", "time", maintain_order=True), tuple(notes)


def _describe_invented_times(
    told: _HistoryClicks, frame: pl.DataFrame, events: int
) -> tuple[str, ...]:
    """Which events have a made-up time, and how many of them train in spite of a late one."""
    if not len(told.row):
        return ()
    held = frame.filter(pl.col("role") > 0)["time"].to_numpy()
    first = held.min(initial=np.iinfo(np.int64).max)
    late = int(((told.role == 0) & (told.time >= first)).sum())
    return (
        f"mind: {len(told.row)} of {events} events are clicks that only histories tell of. Their "
        "times are made up, right before the impression that first tells of each: hour, weekday, "
        "data.since and data.until mean little for them.",
        f"mind: {late} of them train although the time made up is not before the first held-out "
        "impression: they are older clicks of users who come late.",
    )[: 2 if late else 1]


def make_events(
    found: Impressions, known: pl.Series, need_history: bool
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """Single events of impressions and histories, with news that have a text.

    Args:
        found: The impressions, with `split` as `assign_parts` decides.
        known: Ids of the news that have a text.
        need_history: Also leave out impressions without such a news item in the history.

    Returns:
        user, item, time, rating (1 click, 0 none), impression (null: of a history), split; the
        users; and what was left out.
    """
    frame, notes = _select_usable(found, need_history)
    told = _make_history_clicks(frame, found)
    begin, size = (frame[name].to_numpy() for name in ("begin", "size"))
    row = np.repeat(np.arange(frame.height, dtype=np.int32), size)
    both = np.concatenate([told.row, row])
    news = np.concatenate([told.news, _gather_lists(found.shown, begin, size)])
    liked = np.concatenate(
        [np.ones(len(told.row), np.bool_), _gather_lists(found.clicked, begin, size)]
    )
    none = pl.repeat(None, len(told.row), dtype=pl.UInt32, eager=True)
    columns = {
        "user": frame["user"].gather(both),
        "item": known.gather(news),
        "time": pl.Series(np.concatenate([told.time, np.repeat(frame["time"].to_numpy(), size)])),
        "rating": pl.Series(liked).cast(pl.Float64),
        "impression": frame["impression"].gather(
            pl.concat([none, pl.Series(row).cast(pl.UInt32)], rechunk=True)
        ),
        "split": pl.Series(list(_ROLES), dtype=pl.Enum(list(_ROLES))).gather(
            np.concatenate([told.role, np.repeat(frame["role"].to_numpy(), size)])
        ),
    }
    notes = (*notes, *_describe_invented_times(told, frame, len(both)))
    first = pl.concat([frame["user"].gather(np.unique(told.row)), frame["user"]])
    return pl.DataFrame(columns), tabular.make_users(pl.DataFrame({"user": first})), notes
