"""A catalog of which a model knows a part: items that came later, and texts that have changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.id_lookup import IdLookup
from recsys.data.tables import Tables, check_items, check_windows
from recsys.errors import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RevisedCatalog:
    """Tables as they are now, next to the catalog that a model was fitted on.

    Attributes:
        tables: As they are now.
        origin: (I,) row that each item had in the catalog of the fit; -1: it was not there.
        changed: (C,) rows of items that had another text then.
        before: The items of that catalog, in its order.
    """

    tables: Tables
    origin: Ints
    changed: Ints
    before: pl.DataFrame

    @classmethod
    def keep(cls, tables: Tables) -> RevisedCatalog:
        """The catalog of the fit, as it was."""
        none = np.empty(0, dtype=np.int64)
        return cls(tables, np.arange(len(tables.items)), none, tables.items)

    @property
    def stale(self) -> Ints:
        """(S,) rows of which nothing that was computed of texts holds any more."""
        return np.union1d(np.flatnonzero(self.origin < 0), self.changed)

    def add(self, fresh: pl.DataFrame, where: str) -> RevisedCatalog:
        """Adds items behind the others, and changes those that are there.

        What is not said of a known item stays: a column that only the catalog has.

        Args:
            fresh: item, text and any further columns, each item once.
            where: Where they come from, for messages.

        Raises:
            DataError: A column is of another kind than that of the catalog, or a row cannot be
                used.
        """
        items = self.tables.items
        check_items(fresh, where)
        fresh = _align_types(fresh, items, where)
        at = IdLookup(items["item"]).find_rows(fresh["item"]).astype(np.int64)
        known, old = fresh.filter(at >= 0), at[at >= 0]
        changed = old[(items["text"].gather(old) != known["text"]).to_numpy()]
        own = items.with_columns(
            items[name].scatter(old, known[name])
            if name in items.columns
            else pl.Series(name, [None] * len(items), dtype=known.schema[name]).scatter(
                old, known[name]
            )
            for name in known.columns
        )
        both = pl.concat([own, fresh.filter(at < 0)], how="diagonal")
        check_windows(both, where)
        more = np.full(len(both) - len(items), -1, dtype=np.int64)
        return RevisedCatalog(
            dataclasses.replace(self.tables, items=both),
            np.concatenate([self.origin, more]),
            np.union1d(self.changed, changed),
            self.before,
        )


Revise = Callable[[Tables, str], RevisedCatalog]
"""Makes of tables, with their fingerprint, those that are to be ranked."""


def _align_types(fresh: pl.DataFrame, items: pl.DataFrame, where: str) -> pl.DataFrame:
    """The frame with the types that the catalog's columns have.

    Raises:
        DataError: A value does not go with them.
    """
    columns = []
    for column in fresh:
        kind = items.schema.get(column.name, column.dtype)
        # A text file has text alone; an empty place in it is nothing.
        bare = (
            column.replace("", None) if column.dtype == pl.String and kind != pl.String else column
        )
        cast = bare.cast(kind, strict=False)
        lost = cast.is_null() & bare.is_not_null()
        if lost.any():
            row = int(lost.arg_true()[0])
            raise DataError(
                f"{where}: row {row + 1} has '{column[row]}' in column '{column.name}', which is "
                f"{kind} in the catalog; mend it, or leave the column out."
            )
        columns.append(cast)
    return pl.DataFrame(columns)
