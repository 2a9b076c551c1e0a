"""Contextual features of a query: the hour, the weekday, columns of the interactions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recsys.data.moments import MOMENT, MomentTexts
from recsys.data.splits.split import TRAIN, Split
from recsys.data.tables import Tables
from recsys.errors import ConfigError

Ints = npt.NDArray[np.int64]

UNKNOWN = 0
"""The code of what is missing, or what training has not seen."""

MOST = 10_000
"""Values of a column above which it names single events rather than kinds of them."""

_HOUR, _DAY = 3_600_000, 86_400_000
_CLOCK: Mapping[str, tuple[str, ...]] = {
    "hour": tuple(str(hour) for hour in range(24)),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
"""What the time of a query says of it, and the values of that, from code 1."""
_OUTCOMES = (
    *("user", "item", "rating", "weight", "label", "impression", "split", "time"),
    *("review", "read", "seen"),  # what a user did with the item, or says of it
    *("rating_", "weight_"),  # the names that a source gives to columns it was not told of
)
"""Columns that say what came of an event, or which one it was."""


@dataclass(frozen=True)
class ContextFeatures:
    """What is known of the queries of a data set, as codes; what the codes stand for.

    Attributes:
        codes: (N,) a code an event by name, in the split's order; `UNKNOWN` for what is not known.
        values: What each code stands for, by name; nothing for `UNKNOWN`.
        clock: Those names that come from the time of a query, not from a column.
        moments: What users said before each event, where a column says so; None: nowhere. Its
            codes are among those of the batches as well, by the name `MOMENT`.
    """

    codes: Mapping[str, Ints] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clock: frozenset[str] = frozenset()
    moments: MomentTexts | None = None

    @property
    def event_codes(self) -> Mapping[str, Ints]:
        """(N,) all codes of the events by name, those of `moments` first."""
        if self.moments is None:
            return self.codes
        return {MOMENT: self.moments.codes, **self.codes}

    @property
    def codes_now(self) -> Mapping[str, Ints]:
        """(U,) codes of users after all events, by name; 0 for the names that are not there."""
        return {} if self.moments is None else {MOMENT: self.moments.now}

    @property
    def sizes(self) -> dict[str, int]:
        """How many codes each name has, the unknown one included."""
        return {name: len(values) for name, values in self.values.items()}

    def format_codes(self) -> dict[str, list[str]]:
        """What a text says of each code, by name: "device: phone"; nothing of the unknown one."""
        return {
            name: [_format_value(name, value) for value in of] for name, of in self.values.items()
        }

    def encode_context(
        self, moment: int, given: Mapping[str, str]
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """The codes of one query that is asked now, as training has them.

        Args:
            moment: When it is asked, in milliseconds since 1970; it sets hour and weekday.
            given: Values of columns; an empty one is unknown.

        Returns:
            Codes (1,) by name, and a sentence for each column that counts as unknown.

        Raises:
            ConfigError: A column is no context of the run, or the moment has set it already.
        """
        columns = [name for name in self.values if name not in self.clock]
        for name in given:
            self._check_column(name, columns)
        time = np.array([moment])
        found = {name: torch.from_numpy(_encode_time(name, time)) for name in self.clock}
        notes = []
        for name in columns:
            values, value = self.values[name], given.get(name)
            known = value in values
            found[name] = torch.tensor([values.index(value) if known and value else UNKNOWN])
            if value is None:
                notes.append(f"context.{name} is not given: it counts as unknown.")
            elif not known:
                near = difflib.get_close_matches(value, values[1:]) or values[1:6]
                notes.append(
                    f"context.{name}: training has not seen '{value}', which counts as unknown (it "
                    f"has seen {', '.join(near) or 'none'}{', ...' if len(near) == 5 else ''})."
                )
        return {name: found[name] for name in self.values}, tuple(notes)

    def _check_column(self, name: str, columns: Sequence[str]) -> None:
        """Raises an error for a column that is no contextual feature of the run."""
        if not self.values:
            raise ConfigError(
                f"context.{name}: the run was trained without context (architecture.context); "
                "leave it out."
            )
        if name in self.clock:
            raise ConfigError(
                f"context.{name}: the {name} is that of the moment; give at=, such as "
                "at=2024-05-01T12:00 (UTC)."
            )
        if name not in columns:
            known = [*(f"context.{c}" for c in columns), *(["at"] if self.clock else [])]
            raise ConfigError(
                f"context.{name}: the run was not trained with this column (there are: "
                f"{', '.join(known)})."
            )


def _format_value(name: str, value: str) -> str:
    said = " ".join(value.split())
    return f"{name.replace('_', ' ')}: {said}" if said else ""


def make_context_features(
    tables: Tables, split: Split, names: Sequence[str], outcomes: Sequence[str]
) -> ContextFeatures:
    """What is known of each event before its user chooses.

    `hour` (0 to 23) and `weekday` are those of the event's time, in UTC. The values of a column
    are those that training events have: any other is unknown, as is an empty one. A column must
    be known before the user chooses; one that tells the outcome raises an error.

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
    found = {name: _encode_feature(tables, split, name, outcomes) for name in names}
    return ContextFeatures(
        codes={name: codes for name, (codes, _) in found.items()},
        values={name: ("", *values) for name, (_, values) in found.items()},
        clock=frozenset(n for n in names if n in _CLOCK and n not in tables.interactions.columns),
    )


def _encode_feature(
    tables: Tables, split: Split, name: str, outcomes: Sequence[str]
) -> tuple[Ints, Sequence[str]]:
    """(N,) codes of the events, and the values of the codes from 1."""
    frame = tables.interactions
    banned = (*_OUTCOMES, *outcomes)
    if name in banned:
        raise ConfigError(
            f"architecture.context: '{name}' names the event or tells what came of it, which is "
            "not known when a recommendation is asked for; leave it out."
        )
    if name in _CLOCK and name not in frame.columns:
        if split.time is None:
            raise ConfigError(
                f"architecture.context: {name} needs times, and the interactions have an order "
                "only; leave it out or name the time column."
            )
        return _encode_time(name, split.time), _CLOCK[name]
    if name not in frame.columns or split.row is None:
        known = [*_CLOCK, *(c for c in frame.columns if c not in banned)]
        raise ConfigError(
            f"architecture.context: the interactions have no column '{name}' (there are: "
            f"{', '.join(known)})."
        )
    return _encode_column(frame[name].gather(split.row), split)


def _encode_time(name: str, time: Ints) -> Ints:
    """(N,) codes of hour or weekday from milliseconds since 1970 (N,), in UTC."""
    if name == "hour":
        return 1 + time % _DAY // _HOUR
    # 1 January 1970 was a Thursday; Monday is the first day.
    return 1 + (time // _DAY + 3) % 7


def _encode_column(values: pl.Series, split: Split) -> tuple[Ints, Sequence[str]]:
    """(N,) codes of a column in the split's order, and its values in training."""
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
    return codes, kinds.to_list()
