"""What is known of a query when it is asked: the hour, the weekday, columns of the interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.splits import TRAIN, Split
from recsys.data.tables import Tables
from recsys.errors import ConfigError

Ints = npt.NDArray[np.int64]

UNKNOWN = 0
"""The code of what is missing, or what training has not seen."""

MOST = 10_000
"""Values of a column above which it names single events rather than kinds of them."""

_HOUR, _DAY = 3_600_000, 86_400_000
_TIMES = ("hour", "weekday")
_OUTCOMES = (
    *("user", "item", "rating", "weight", "label", "impression", "split", "time"),
    *("rating_", "weight_"),  # the names that a source gives to columns it was not told of
)
"""Columns that say what came of an event, or which one it was."""


class Context(nn.Module):
    """The sum of learned vectors of what is known of a query, zero at first.

    Args:
        sizes: How many codes there are, by name.
        width: D, width of a vector.
    """

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.names = tuple(sizes)
        ends = np.cumsum(list(sizes.values())).tolist()
        self.starts = dict(zip(sizes, [0, *ends[:-1]], strict=True))
        self.vectors = nn.Parameter(torch.zeros(ends[-1], width))

    def forward(self, known: Mapping[str, Tensor]) -> Tensor:
        """(Q,) codes by name -> (Q, D)."""
        at = torch.stack([known[name] + self.starts[name] for name in self.names], dim=1)
        return F.embedding(at, self.vectors).sum(1)


def context_codes(
    tables: Tables, split: Split, names: Sequence[str], outcomes: Sequence[str]
) -> dict[str, Ints]:
    """(N,) a code an event by name, in the split's order; 0 for what is not known.

    `hour` (0 to 23) and `weekday` are those of the event's time, in UTC. The values of a column
    are those that training events have: any other is unknown, as is an empty one. A column must
    be known before the user chooses; what tells the outcome is refused.

    Args:
        tables: The data set.
        split: Its events.
        names: hour, weekday or columns of the interactions.
        outcomes: Further columns that say what came of an event.

    Raises:
        ConfigError: A name is unknown or given twice, tells the outcome, needs times where there
            are none, or has values of single events.
    """
    if len(set(names)) < len(names):
        raise ConfigError("architecture.context names a column twice; leave one out.")
    return {name: _codes(tables, split, name, outcomes) for name in names}


def _codes(tables: Tables, split: Split, name: str, outcomes: Sequence[str]) -> Ints:
    frame = tables.interactions
    banned = (*_OUTCOMES, *outcomes)
    if name in banned:
        raise ConfigError(
            f"architecture.context: '{name}' names the event or tells what came of it, which is "
            "not known when a recommendation is asked for; leave it out."
        )
    if name in _TIMES and name not in frame.columns:
        if split.time is None:
            raise ConfigError(
                f"architecture.context: {name} needs times, and the interactions have an order "
                "only; leave it out or name the time column."
            )
        if name == "hour":
            return 1 + split.time % _DAY // _HOUR
        # 1 January 1970 was a Thursday; Monday is the first day.
        return 1 + (split.time // _DAY + 3) % 7
    if name not in frame.columns or split.row is None:
        known = [*_TIMES, *(c for c in frame.columns if c not in banned)]
        raise ConfigError(
            f"architecture.context: the interactions have no column '{name}' (there are: "
            f"{', '.join(known)})."
        )
    return _column(frame[name].gather(split.row), split)


def _column(values: pl.Series, split: Split) -> Ints:
    """(N,) codes of a column in the split's order."""
    if values.dtype.is_float() or values.dtype.is_nested() or values.dtype.is_temporal():
        raise ConfigError(
            f"architecture.context: column '{values.name}' is {values.dtype}; a context is of "
            "texts, whole numbers or truth values."
        )
    texts = values.cast(pl.String).replace("", None)
    kinds = texts.filter(pl.Series(split.role == TRAIN)).drop_nulls().unique().sort()
    if len(kinds) > MOST:
        raise ConfigError(
            f"architecture.context: column '{values.name}' has {len(kinds)} values in training, "
            f"more than {MOST}; it names single events rather than kinds of them."
        )
    found = texts.cast(pl.Enum(kinds), strict=False).to_physical().cast(pl.Int64)
    codes: Ints = (found + 1).fill_null(UNKNOWN).to_numpy().astype(np.int64)
    return codes


def sizes(codes: Mapping[str, Ints]) -> dict[str, int]:
    """How many codes each name has, the unknown one included."""
    least = {"hour": 25, "weekday": 8}
    return {
        name: max(int(of.max(initial=UNKNOWN)) + 1, least.get(name, 1))
        for name, of in codes.items()
    }
