"""A catalog of which a model knows a part: items that came later, and texts that have changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.columns.id_lookup import IdLookup
from recsys.data.tables import Tables, check_items, check_windows, compute_fingerprint
from recsys.errors import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RevisedCatalog:
    """Tables as they are now, next to the catalog that a model was fitted on.

    Attributes:
        tables: As they are now.
        origin: (I,) row that each item had in the catalog of the fit; -1: it was not there.
        changed: (C,) rows of items that had another text then.
        before: The items of that catalog, in its order; of those that are gone, no text.
        digests: SHA-256 of the data of the fit and of the roles of its events, where these are not
            those of the tables; None: they are.
    """

    tables: Tables
    origin: Ints
    changed: Ints
    before: pl.DataFrame
    digests: tuple[str, str] | None = None

    @classmethod
    def keep(cls, tables: Tables) -> RevisedCatalog:
        """The catalog of the fit, as it was."""
        none = np.empty(0, dtype=np.int64)
        return cls(tables, np.arange(len(tables.items)), none, tables.items)

    @classmethod
    def compare(
        cls, tables: Tables, fitted: pl.DataFrame, digests: tuple[str, str]
    ) -> RevisedCatalog:
        """The catalog as it is now, next to what a fit noted of its own.

        Args:
            tables: As they are now.
            fitted: What `describe_catalog` gave of the catalog of the fit.
            digests: Of the data of the fit.
        """
        items = tables.items
        origin = IdLookup(fitted["item"]).find_rows(items["item"]).astype(np.int64)
        known = np.flatnonzero(origin >= 0)
        now = hash_texts(items["text"].gather(known))
        changed = known[(fitted["text"].gather(origin[known]) != now).to_numpy()]
        texts = items.select("item", "text")
        before = fitted.drop("text").join(texts, "item", how="left", maintain_order="left")
        return cls(tables, origin, changed, before, digests)

    @property
    def moved(self) -> bool:
        """Whether items stand in another order than in the fit."""
        known = self.origin[self.origin >= 0]
        return bool((np.diff(known) < 0).any())

    def differs_in_order_alone(self) -> bool:
        """Whether the tables are those of the fit once their items stand as they did then."""
        if not self.moved or self.digests is None or (self.origin < 0).any() or self.gone:
            return False
        items = self.tables.items[np.argsort(self.origin)]
        same = dataclasses.replace(self.tables, items=items)
        return compute_fingerprint(same) == self.digests[0]

    @property
    def gone(self) -> int:
        """How many items of the fit are there no more."""
        return len(self.before) - int((self.origin >= 0).sum())

    def has_other_events(self) -> bool:
        """Whether items have other events than in the fit, by their number.

        Items that came since have none, and those of items that are gone do not count.
        """
        now = self.tables.interactions["item"].value_counts(name="now")
        fresh = self.tables.items["item"].filter(self.origin < 0)
        if now["item"].is_in(fresh.implode()).any():
            return True
        both = self.before.filter(pl.col("text").is_not_null()).join(now, "item", how="left")
        return bool((both["event_count"] != both["now"].fill_null(0)).any())

    def list_stale(self, columns: Sequence[str] = ()) -> Ints:
        """(S,) rows of which nothing holds any more that was computed of texts and of columns."""
        known = np.flatnonzero(self.origin >= 0)
        old, now = self.before[self.origin[known]], self.tables.items[known]
        stale = np.union1d(np.flatnonzero(self.origin < 0), self.changed)
        for name in columns:
            stale = np.union1d(stale, known[old[name].ne_missing(now[name]).to_numpy()])
        return stale

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
        check_windows(both, where, numbered=False)  # its rows are none of the table's
        more = np.full(len(both) - len(items), -1, dtype=np.int64)
        return RevisedCatalog(
            dataclasses.replace(self.tables, items=both),
            np.concatenate([self.origin, more]),
            np.union1d(self.changed, changed),
            self.before,
            self.digests,
        )


Revise = Callable[[Tables, str], RevisedCatalog | None]
"""Makes of tables, with their fingerprint, those that are to be ranked; None: these."""


def describe_catalog(tables: Tables, columns: Sequence[str]) -> pl.DataFrame:
    """What `RevisedCatalog.compare` needs of the catalog of a fit.

    Args:
        tables: The data of the fit.
        columns: Columns of the items whose values have numbers that the model has learned.

    Returns:
        item, text (a checksum of it), event_count and the columns; in catalog order.
    """
    counts = tables.interactions["item"].value_counts(name="event_count")
    own = tables.items.select("item", *dict.fromkeys(columns))
    own = own.join(counts, "item", how="left", maintain_order="left")
    text = hash_texts(tables.items["text"])
    return own.with_columns(text, pl.col("event_count").fill_null(0))


def hash_texts(texts: pl.Series) -> pl.Series:
    """(N,) eight bytes of the SHA-256 of each text, as a number."""
    digests = (hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in texts)
    numbers = [int.from_bytes(digest[:8]) for digest in digests]
    return pl.Series("text", numbers, dtype=pl.UInt64)


def describe_odd_value(
    fresh: pl.DataFrame,
    column: pl.Series,
    row: int,
    kind: pl.DataType,
    where: str,
    numbered: bool = True,
) -> str:
    """The message for a value that does not go with a column of the catalog.

    Args:
        fresh: The table that has it.
        column: Its column.
        row: Its row.
        kind: What the catalog has in that column.
        where: Where the table comes from.
        numbered: Whether the row is named as well as the id.
    """
    value = column[row]
    shown = str(value.to_list() if isinstance(value, pl.Series) else value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    place = f" in row {row + 1}" if numbered else ""
    return (
        f"{where}: '{fresh['item'][row]}'{place} has '{shown}' in column "
        f"'{column.name}', which is {kind} in the catalog; mend it, or leave it out."
    )


def _align_types(fresh: pl.DataFrame, items: pl.DataFrame, where: str) -> pl.DataFrame:
    """The frame with the types that the catalog's columns have.

    Raises:
        DataError: A value does not go with them.
    """
    columns = []
    for column in fresh:
        kind = items.schema.get(column.name, column.dtype)
        # A text file has text alone; an empty place in it is nothing.
        texts = column.dtype == pl.String and kind != pl.String
        bare = column.replace("", None) if texts else column
        try:
            cast = bare.cast(kind, strict=False)
        except pl.exceptions.PolarsError:  # no value of such a kind can be had
            cast = pl.Series(column.name, [None] * len(column), dtype=kind)
        lost = cast.is_null() & bare.is_not_null()
        if lost.any():
            row = int(lost.arg_true()[0])
            raise DataError(describe_odd_value(fresh, column, row, kind, where, numbered=False))
        columns.append(cast)
    return pl.DataFrame(columns)
