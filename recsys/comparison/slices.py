"""Parts of the test cases: cold and warm, by history, by popularity, by any column."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.config import nearest
from recsys.errors import ConfigError
from recsys.metrics.parts import Part, by_number, by_text

DEFAULT = ("cold", "history", "popularity")
KINDS = 8
"""Parts at most of a column of texts, the rest among them."""
NOT_SLICES = ("case", "user", "target", "rank", "ties", "auc", "mrr", "mrr_all")
"""Columns that name a case or depend on its outcome; those of metrics at a cut-off do as well."""
INSTEAD = {"history": "past"}
"""A column that says the same whatever the method reads: a history is cut at data.max_history."""


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
        found = by_number(values, apart=column == "popularity")
    else:
        found = by_text(values, KINDS)
    return [part for part in found if part.mask.any()]
