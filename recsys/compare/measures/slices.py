"""Parts of the test cases: cold and warm, by history, by popularity, by any column."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.compare.finished_runs import FinishedRun
from recsys.config.compose import nearest
from recsys.errors import ConfigError
from recsys.metrics.groups import CaseSlice, slice_by_column, slice_by_number, slice_by_text

DEFAULT = ("cold", "cold_user", "history", "popularity")
ITEM = "item."
"""What stands before an item column among those of a case."""
KINDS = 8
"""Parts at most of a column of texts, the rest among them."""
NOT_SLICES = ("case", "user", "target", "rank", "ties", "auc", "mrr", "mrr_all")
"""Columns that name a case or depend on its outcome; those of metrics at a cut-off do as well."""
INSTEAD = {"history": "past"}
"""A column that says the same whatever the method reads: a history is cut at data.max_history."""


def select_columns(
    runs: Sequence[FinishedRun], asked: Sequence[str] | None
) -> list[tuple[str, pl.DataFrame]]:
    """The columns to slice by, each with the cases of the first run that knows it.

    Args:
        runs: All that are compared: their cases are the same, and what each knows of them is not,
            as one may be of an older version or have another `evaluation.slices`.
        asked: As the user named them; None means the default ones that are there.

    Raises:
        ConfigError: No run has such a column.
    """
    found: dict[str, pl.DataFrame] = {}
    for name in DEFAULT if asked is None else asked:
        for wanted in (INSTEAD.get(name, name), name):
            for run in runs:
                if wanted in _list_usable(run.cases):
                    found.setdefault(name, run.cases)
        if name not in found and asked is not None:
            raise ConfigError(_describe_missing(name, runs))
    return list(found.items())


def _list_usable(frame: pl.DataFrame) -> list[str]:
    """Columns of some cases that say something of the case alone."""
    return [
        name
        for name, kind in frame.schema.items()
        if name not in NOT_SLICES and "@" not in name and not kind.is_nested()
    ]


def _describe_missing(name: str, runs: Sequence[FinishedRun]) -> str:
    """That no run has a column, and what to do."""
    known = list(dict.fromkeys(column for run in runs for column in _list_usable(run.cases)))
    text = f"slices: no run has a column '{name}' of cases to slice by"
    if name in DEFAULT:
        return f"{text}; {runs[0].folder} is of an older version of recsys: run fit again."
    item = name.removeprefix(ITEM)
    return (
        f"{text}; for a column of items fit one again, as {runs[0].folder}, with "
        f"evaluation.slices=[{item}], and ask for slices={ITEM}{item}.{nearest(name, known)}"
    )


def slice_cases(frame: pl.DataFrame, column: str) -> list[CaseSlice]:
    """The parts of the cases by a column, none empty, together all of them.

    Cold cases are apart where the popularity of the target cuts the others.
    """
    instead = INSTEAD.get(column, column)
    values = frame[instead if instead in frame.columns else column]
    if values.dtype == pl.Boolean:
        flags = values.fill_null(False).to_numpy()
        names = ("cold", "warm") if column in ("cold", "cold_user") else ("yes", "no")
        found = [CaseSlice(names[0], flags), CaseSlice(names[1], ~flags)]
    elif column.startswith(ITEM):
        found = slice_by_column(values, KINDS)
    elif values.dtype.is_numeric():
        found = slice_by_number(values, apart=column == "popularity")
    else:
        found = slice_by_text(values, KINDS)
    return [part for part in found if part.mask.any()]
