"""Items that a model has not seen: a table that adds them by their texts, and changes others."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys import printable
from recsys.config.compose import RunConfig, get_choice_name
from recsys.config.schema import SourceConfig
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template, list_template_columns
from recsys.data.revision import Revise, RevisedCatalog, describe_odd_value
from recsys.data.tables import Tables, check_values, parse_windows
from recsys.errors import ConfigError, DataError


@dataclass(frozen=True)
class NewItems:
    """A table of items that come to a model's own, or change some of these.

    Attributes:
        frame: `item`, and `text` or the columns that the run's texts are made of.
        where: Where it comes from, for messages.
    """

    frame: pl.DataFrame
    where: str

    @classmethod
    def read(cls, items: pl.DataFrame | str | Path) -> NewItems:
        """A frame, or a .csv, .tsv, .jsonl or .parquet file.

        Raises:
            ConfigError: It is neither a frame nor a file.
            DataError: The file cannot be read, or has no usable column `item`.
        """
        if not isinstance(items, pl.DataFrame | str | Path):
            raise ConfigError(
                f"items is of type {type(items).__name__}; give a frame of polars, or a file."
            )
        where = "items" if isinstance(items, pl.DataFrame) else str(items)
        frame = items if isinstance(items, pl.DataFrame) else _read_file(Path(items))
        if "item" not in frame.columns:
            raise DataError(
                f"{where} has no column 'item' (there are: {', '.join(frame.columns) or 'none'}); "
                "name the column of the ids so."
            )
        ids = tabular.parse_ids(frame["item"], where)
        check_values(ids, where)
        return cls(frame.with_columns(ids), where)

    def compute_fingerprint(self) -> str:
        """SHA-256 of what it holds."""
        return hashlib.sha256(self.frame.write_ndjson().encode()).hexdigest()

    def equals(self, other: NewItems) -> bool:
        """Whether another table says the same."""
        same = self.frame.schema == other.frame.schema
        return same and self.where == other.where and self.frame.equals(other.frame)

    def write_texts(self, source: SourceConfig, catalog: pl.Schema) -> pl.DataFrame:
        """The table with the texts that a run's source makes of such items.

        Args:
            source: Whose template it is.
            catalog: Columns of the items that they come to.

        Raises:
            DataError: A column of the template is missing, a column holds no texts, or a time of
                availability is none.
        """
        template = source.item_template
        parts = [] if template is None else list_template_columns(template)
        frame = self._read_texts(parts, catalog)
        if "text" not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("text"))
        if frame["text"].null_count():
            missing = [name for name in parts if name not in frame.columns]
            if "text" in self.frame.columns and (template is None or missing):
                row = int(frame["text"].is_null().arg_true()[0])
                more = f", or the columns that the run's texts are made of ({template})"
                raise DataError(
                    f"{self.where}: '{frame['item'][row]}' in row {row + 1} has an empty "
                    f"text; give it one{'' if template is None else more}."
                )
            if template is None:
                raise DataError(f"{self.where} has no column 'text', which the run's items have.")
            if missing:
                raise DataError(
                    f"{self.where} has no column '{missing[0]}', of which the run's texts are made "
                    f"({template}); add it, or give whole texts in a column 'text'."
                )
            filled = fill_template(frame, template, source.text_lists)
            frame = frame.with_columns(pl.coalesce(pl.col("text").cast(pl.String), filled))
        frame = frame.with_columns(pl.col("text").cast(pl.String).fill_null(""))
        return parse_windows(frame, self.where)

    def _read_texts(self, parts: Sequence[str], catalog: pl.Schema) -> pl.DataFrame:
        """The table; in columns of texts, a number that is none is nothing.

        Args:
            parts: Columns that texts are made of.
            catalog: Columns of the items that they come to.

        Raises:
            DataError: A column of texts holds lists, records, bytes or objects.
        """
        frame = self.frame
        for name in dict.fromkeys(("text", *parts)):
            if name not in frame.columns:
                continue
            column, kind = frame[name], catalog.get(name, pl.String())
            if column.dtype.is_float():
                finite = pl.when(pl.col(name).is_finite()).then(pl.col(name))
                frame = frame.with_columns(finite.alias(name))
            no_text = column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object)
            present = column.is_not_null().arg_true()
            # A template joins lists, where the items that are there have them too.
            if no_text and (name == "text" or not kind.is_nested()) and len(present):
                row = int(present[0])
                raise DataError(describe_odd_value(frame, column, row, kind, self.where))
        return frame


def _read_file(path: Path) -> pl.DataFrame:
    """A file of items.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty; give a table with a column 'item', or leave items= out.")
    return tabular.read_table(path)


class ItemReviser:
    """Gives a catalog the items of some tables, once for all models that ask for it.

    Args:
        tables: The tables, one after the other; a later one has the last word.
        source: Of the run, whose template makes the texts.
        compare: Says how the tables that are read differ from those of the fit; None: they do not.
    """

    def __init__(
        self,
        tables: Sequence[NewItems],
        source: SourceConfig,
        compare: Revise | None = None,
    ) -> None:
        self._tables, self._source, self._compare = tables, source, compare
        self._made: dict[str, RevisedCatalog | None] = {}

    def revise(self, tables: Tables, fingerprint: str) -> RevisedCatalog | None:
        """The catalog with all items, where it is another than that of the fit; notes say how.

        Args:
            tables: As they were read.
            fingerprint: Theirs.

        Raises:
            DataError: A table of items cannot be used.
        """
        if fingerprint not in self._made:
            revised = None if self._compare is None else self._compare(tables, fingerprint)
            for table in self._tables:
                before = RevisedCatalog.keep(tables) if revised is None else revised
                fresh = table.write_texts(self._source, before.tables.items.schema)
                revised = before.add(fresh, table.where)
                _print_changes(table.where, before, revised, nothing=fresh.is_empty())
            self._made[fingerprint] = revised
        return self._made[fingerprint]


def _print_changes(
    where: str, before: RevisedCatalog, after: RevisedCatalog, nothing: bool
) -> None:
    """Says on stderr how much is new, also where a table has no rows."""
    fresh = len(after.origin) - len(before.origin)
    changed = len(after.changed) - len(before.changed)
    parts = [f"{fresh:,} new {'item' if fresh == 1 else 'items'}"] if fresh else []
    parts += [f"{changed:,} with another text, encoded anew"] if changed else []
    if nothing:
        parts = ["no new items"]
    if parts:
        print(printable.escape_line(f"note: {where}: {', '.join(parts)}"), file=sys.stderr)


def can_score(run: RunConfig, members: Iterable[RunConfig]) -> bool:
    """Whether a model has a score for an item that its fit did not know.

    Args:
        run: Its configuration.
        members: Those of the runs that it combines, one of which is enough.
    """
    if not run.architecture.member_runs:
        return run.architecture.scores_new_items
    return any(member.architecture.scores_new_items for member in members)


def check_scores_new_items(scores: bool, run: RunConfig, name: str) -> None:
    """Refuses new items where a model has no score for any.

    Args:
        scores: What `can_score` said.
        run: The configuration of the model.
        name: What it is called.

    Raises:
        ConfigError: It reads no item texts.
    """
    if not scores:
        raise ConfigError(
            f"{name}: {get_choice_name(run.architecture)} reads no item texts here, so that it has "
            "no score for an item that its training has not seen; give items= to a run that reads "
            "texts, or fit again with them."
        )
