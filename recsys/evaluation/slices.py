"""Test metrics of parts of the cases: by item, user, history, popularity and item column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recsys.data.splits.history import CaseHistories
from recsys.data.splits.split import Split
from recsys.data.tables import IdMap, Tables
from recsys.metrics.beyond_accuracy import compute_mean
from recsys.metrics.functional import compute_from_counts
from recsys.metrics.groups import CaseSlice, slice_by_column

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LENGTHS = ((0, "0"), (1, "1-4"), (5, "5-9"), (10, "10-19"), (20, "20+"))
_HEAD, _TAIL = 0.2, 0.8
_TIERS = ("head", "mid", "tail", "cold")
_KINDS = 20
"""Parts at most of a column of texts, the rest among them."""
ITEM = "item."
"""What stands before an item column among the columns of a case."""


class SliceInputs(NamedTuple):
    """What the cases are cut by.

    Attributes:
        tables: The data set.
        split: Its events.
        counts: (I,) how often training shows each item as a positive.
        columns: Item columns.
    """

    tables: Tables
    split: Split
    counts: Ints
    columns: tuple[str, ...]


def assign_tiers(counts: Ints) -> npt.NDArray[np.str_]:
    """(I,) head, mid, tail or cold: a fifth of all training events are of head items.

    Items with more events come first: head items are those above which lies less than a fifth of
    the events, tail items those above which lie four fifths or more, as in Abdollahpouri et al.,
    User-centered Evaluation of Popularity Bias in Recommender Systems (UMAP 2021); items with
    equally many share a tier. Cold items have none.

    Args:
        counts: (I,) training events of each item.
    """
    kinds, place, items = np.unique(counts, return_inverse=True, return_counts=True)
    events = kinds * items
    above = (events.sum() - np.cumsum(events)) / max(1, events.sum())
    names = np.where(above < _HEAD, "head", np.where(above >= _TAIL, "tail", "mid"))
    found: npt.NDArray[np.str_] = np.where(kinds == 0, "cold", names)[place]
    return found


def annotate_cases(cases: pl.DataFrame, by: SliceInputs) -> pl.DataFrame:
    """Adds what the cases are cut by, whoever ranks them.

    Args:
        cases: A row a case, with its event number as `case` and its first positive as `target`.
        by: What they are cut by.

    Returns:
        The cases with `past` (positive events before), `cold_user` (no positive event in training),
        `tier` and `item.COLUMN` for each column.
    """
    past, case = CaseHistories(by.split), cases["case"].to_numpy()
    ids = IdMap(by.tables.items["item"].to_list(), "item")
    target = ids.get_rows(cases["target"])
    return cases.with_columns(
        pl.Series("past", past.count_events(case)),
        pl.Series("cold_user", past.is_cold(case)),
        pl.Series("tier", assign_tiers(by.counts)[target].tolist(), dtype=pl.String),
        *(by.tables.items[name][target].alias(f"{ITEM}{name}") for name in by.columns),
    )


def compute_slice_means(
    cases: pl.DataFrame, names: Sequence[str], label: str, columns: Sequence[str]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Means of metrics over the parts of the cases.

    Args:
        cases: As `annotate_cases` returns them.
        names: Metrics, with what stands before them.
        label: What stands before them.
        columns: Item columns that are among those of the cases.

    Returns:
        For `item`, `user`, `history`, `popularity`, each column and, where a target was put into a
        list or a list lacks it, `target`: by part, `cases` and the mean of each metric over those
        that define it (NaN where none does). No part is empty.
    """
    lengths = [name for _, name in _LENGTHS]
    cuts = {
        "item": _slice_by_flag(cases["cold"]),
        "user": _slice_by_flag(cases["cold_user"]),
        "history": _slice_by_name(_bin_lengths(cases["past"].to_numpy()), lengths),
        "popularity": _slice_by_name(cases["tier"].to_numpy(), _TIERS),
        **{name: slice_by_column(cases[f"{ITEM}{name}"], _KINDS) for name in columns},
    }
    for column, name in (("inserted", "put in"), ("missed", "missed")):
        if column in cases.columns and cases[column].any():
            flags = cases[column].to_numpy().astype(np.bool_)
            cuts["target"] = [CaseSlice("proposed", ~flags), CaseSlice(name, flags)]
    return {
        name: {
            part.label: compute_part_means(cases.filter(part.mask), names, label)
            for part in parts
            if part.mask.any()
        }
        for name, parts in cuts.items()
    }


def compute_part_means(
    cases: pl.DataFrame, names: Sequence[str], label: str
) -> dict[str, float | int]:
    """How many cases there are, and the mean of each metric, as `compute_slice_means` has them."""
    values = {name: compute_per_case(cases, name.removeprefix(label)) for name in names}
    return {
        "cases": cases.height,
        **{metric: compute_mean(value) for metric, value in values.items()},
    }


def compute_per_case(cases: pl.DataFrame, metric: str) -> Floats:
    """(Q,) values of a metric: a column of its own, or told by the rank of the one positive."""
    if metric in cases.columns:
        return cases[metric].to_numpy().astype(np.float64)
    k = metric.partition("@")[2]
    above = torch.from_numpy(cases["rank"].to_numpy().astype(np.int64) - 1)
    equal = torch.from_numpy(cases["ties"].to_numpy().astype(np.int64))
    found: Floats = compute_from_counts(above, equal, [int(k) if k else 10])[metric].numpy()
    return found


def _slice_by_flag(cold: pl.Series) -> list[CaseSlice]:
    flags = cold.to_numpy().astype(np.bool_)
    return [CaseSlice("cold", flags), CaseSlice("warm", ~flags)]


def _slice_by_name(values: npt.NDArray[np.str_], names: Sequence[str]) -> list[CaseSlice]:
    return [CaseSlice(name, values == name) for name in names]


def _bin_lengths(past: Ints) -> npt.NDArray[np.str_]:
    least = np.array([at for at, _ in _LENGTHS])
    names = np.array([name for _, name in _LENGTHS])
    found: npt.NDArray[np.str_] = names[np.searchsorted(least, past, side="right") - 1]
    return found
