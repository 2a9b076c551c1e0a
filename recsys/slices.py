"""Test metrics of parts of the cases: by item, user, history, popularity and item column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recsys.data.past import Past
from recsys.data.splits import Split
from recsys.data.tables import IdMap, Tables
from recsys.metrics.functional import from_counts

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LENGTHS = ((0, "0"), (1, "1-4"), (5, "5-9"), (10, "10-19"), (20, "20+"))
_HEAD, _TAIL = 0.2, 0.8
_KINDS = 20
"""Values above which a column of texts keeps its most frequent ones, and the rest is "other"."""
_PARTS = 4
"""Parts of about equal size that a column of numbers is cut into."""
ITEM = "item."
"""What stands before an item column among the columns of a case."""


class Slicing(NamedTuple):
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


def tiers(counts: Ints) -> npt.NDArray[np.str_]:
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


def annotate(cases: pl.DataFrame, by: Slicing) -> pl.DataFrame:
    """Adds what the cases are cut by, whoever ranks them.

    Args:
        cases: A row a case, with its event number as `case` and its first positive as `target`.
        by: What they are cut by.

    Returns:
        The cases with `past` (positive events before), `cold_user` (no positive event in training),
        `tier` and `item.COLUMN` for each column.
    """
    past, case = Past(by.split), cases["case"].to_numpy()
    ids = IdMap(by.tables.items["item"].to_list(), "item")
    target = ids.rows(cases["target"])
    return cases.with_columns(
        pl.Series("past", past.lengths(case)),
        pl.Series("cold_user", past.cold(case)),
        pl.Series("tier", tiers(by.counts)[target].tolist(), dtype=pl.String),
        *(by.tables.items[name][target].alias(f"{ITEM}{name}") for name in by.columns),
    )


def means(
    cases: pl.DataFrame, names: Sequence[str], label: str, columns: Sequence[str]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Means of metrics over the parts of the cases.

    Args:
        cases: As `annotate` returns them.
        names: Metrics, with what stands before them.
        label: What stands before them.
        columns: Item columns that are among those of the cases.

    Returns:
        For `item`, `user`, `history`, `popularity` and each column: by part, `cases` and the mean
        of each metric over those that define it (NaN where none does).
    """
    values = {name: per_case(cases, name.removeprefix(label)) for name in names}
    cuts = {
        "item": _flags(cases["cold"], "cold", "warm"),
        "user": _flags(cases["cold_user"], "cold", "warm"),
        "history": _lengths(cases["past"].to_numpy()),
        "popularity": cases["tier"].to_numpy(),
        **{name: _column(cases[f"{ITEM}{name}"]) for name in columns},
    }
    out: dict[str, dict[str, dict[str, float | int]]] = {}
    for name, part in cuts.items():
        out[name] = {}
        for kind in dict.fromkeys(part.tolist()) if name == "history" else sorted(set(part)):
            mask = part == kind
            out[name][str(kind)] = {
                "cases": int(mask.sum()),
                **{metric: _mean(value[mask]) for metric, value in values.items()},
            }
    order = [name for _, name in _LENGTHS]
    out["history"] = dict(sorted(out["history"].items(), key=lambda kv: order.index(kv[0])))
    return out


def per_case(cases: pl.DataFrame, metric: str) -> Floats:
    """(Q,) values of a metric: a column of its own, or told by the rank of the one positive."""
    if metric in cases.columns:
        return cases[metric].to_numpy().astype(np.float64)
    k = metric.partition("@")[2]
    above = torch.from_numpy(cases["rank"].to_numpy().astype(np.int64) - 1)
    equal = torch.from_numpy(cases["ties"].to_numpy().astype(np.int64))
    found: Floats = from_counts(above, equal, [int(k) if k else 10])[metric].numpy()
    return found


def _mean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _flags(values: pl.Series, yes: str, no: str) -> npt.NDArray[np.str_]:
    return np.where(values.to_numpy(), yes, no)


def _lengths(past: Ints) -> npt.NDArray[np.str_]:
    least = np.array([at for at, _ in _LENGTHS])
    names = np.array([name for _, name in _LENGTHS])
    found: npt.NDArray[np.str_] = names[np.searchsorted(least, past, side="right") - 1]
    return found


def _column(values: pl.Series) -> npt.NDArray[np.str_]:
    """Texts as they are, the most frequent ones; numbers in parts of about equal size."""
    if values.dtype.is_numeric():
        numbers = values.cast(pl.Float64).to_numpy()
        known = ~np.isnan(numbers)
        names = np.full(len(numbers), "none", dtype=object)
        if known.any():
            shares = np.arange(1, _PARTS) / _PARTS
            edges = np.unique(np.quantile(numbers[known], shares, method="inverted_cdf"))
            place = np.searchsorted(edges, numbers, side="left")
            for at in np.unique(place[known]):
                mask = known & (place == at)
                low, high = numbers[mask].min(), numbers[mask].max()
                names[mask] = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return names.astype(np.str_)
    texts = values.cast(pl.String).fill_null("none").to_numpy().astype(np.str_)
    kinds, counts = np.unique(texts, return_counts=True)
    kept = kinds[np.lexsort((kinds, -counts))][:_KINDS]
    return np.where(np.isin(texts, kept), texts, "other")
