"""Parts of the test cases: cold and warm, by history, by popularity, by any column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import nearest
from recsys.errors import ConfigError

Mask = NDArray[np.bool_]

DEFAULT = ("cold", "history", "popularity")
PARTS = 4
"""Parts of about equal size that a column of numbers is cut into."""
KINDS = 8
"""Values above which a column of texts keeps its most frequent ones, and the rest is "other"."""
NOT_SLICES = ("case", "user", "target", "rank", "ties", "auc", "mrr", "mrr_all")
"""Columns that name a case or depend on its outcome; those of metrics at a cut-off do as well."""
INSTEAD = {"history": "past"}
"""A column that says the same whatever the method reads: a history is cut at data.max_history."""


@dataclass(frozen=True)
class Part:
    """Some of the test cases.

    Attributes:
        label: What they have in common.
        mask: (N,) which they are.
    """

    label: str
    mask: Mask


def columns(frame: pl.DataFrame, asked: Sequence[str] | None) -> list[str]:
    """The columns to slice by.

    Args:
        frame: The cases.
        asked: As the user named them; None means the default ones that are there.

    Raises:
        ConfigError: There is no such column.
    """
    known = [
        name
        for name, kind in frame.schema.items()
        if name not in NOT_SLICES and "@" not in name and not kind.is_nested()
    ]
    if asked is None:
        return [name for name in DEFAULT if name in known]
    for name in asked:
        if name not in known:
            older = "; it is of an older version of recsys" if name in DEFAULT else ""
            raise ConfigError(
                f"slices: cases.parquet has no column '{name}' to slice by{older}."
                f"{nearest(name, known)}"
            )
    return list(dict.fromkeys(asked))


def parts(frame: pl.DataFrame, column: str) -> list[Part]:
    """The parts of the cases by a column, none empty, together all of them.

    Cold cases are apart where the popularity of the target cuts the others.
    """
    instead = INSTEAD.get(column, column)
    values = frame[instead if instead in frame.columns else column]
    if values.dtype == pl.Boolean:
        flags = values.fill_null(False).to_numpy()
        names = ("cold", "warm") if column == "cold" else ("yes", "no")
        found = [Part(names[0], flags), Part(names[1], ~flags)]
    elif values.dtype.is_numeric():
        found = _numbers(values, apart=column == "popularity")
    else:
        found = _texts(values)
    return [part for part in found if part.mask.any()]


def _numbers(values: pl.Series, apart: bool) -> list[Part]:
    """Equal numbers stay together, so that parts may differ in size."""
    numbers = values.cast(pl.Float64).to_numpy()
    missing = np.isnan(numbers)
    first: list[Part] = [Part("none", missing)] if missing.any() else []
    if apart:
        first.append(Part("0 (cold)", numbers == 0))
    rest = ~missing & (numbers != 0) if apart else ~missing
    if not rest.any():
        return first
    shares = np.arange(1, PARTS) / PARTS
    edges = np.unique(np.quantile(numbers[rest], shares, method="inverted_cdf"))
    place = np.searchsorted(edges, numbers, side="left")
    for at in range(len(edges) + 1):
        mask = rest & (place == at)
        if mask.any():
            low, high = numbers[mask].min(), numbers[mask].max()
            first.append(Part(f"{low:g}" if low == high else f"{low:g} to {high:g}", mask))
    return first


def _texts(values: pl.Series) -> list[Part]:
    """The most frequent texts, and the rest."""
    texts = values.cast(pl.String).fill_null("none").to_numpy()
    kinds, counts = np.unique(texts, return_counts=True)
    order = np.lexsort((kinds, -counts))
    kept = [str(kinds[at]) for at in (order if len(kinds) <= KINDS else order[: KINDS - 1])]
    found = [Part(kind, texts == kind) for kind in kept]
    return [*found, Part("other", ~np.isin(texts, kept))]
