"""Goodreads: the UCSD Book Graph's JSON lines, or the ordered subset of the ONCE project.

Pages: https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html (Wan and McAuley 2018), files
goodreads_interactions_*.json.gz and goodreads_books_*.json.gz; GitHub, "Jyonn/ONCE" (Liu et al.
2024), files users.jsonl.gz and items.tsv.gz. No checksums are known. The subset has an order but no
times, and its descriptions are a language model's, not the publishers'.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import jsonl, tabular
from recsys.data.readers.jsonl import make_number_column, make_text_column
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_WHAT = (
    "goodreads_interactions_*.json.gz and goodreads_books_*.json.gz of "
    "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html"
)
_EVENTS = {
    "user": make_text_column("user_id"),
    "item": make_text_column("book_id"),
    "added": make_text_column("date_added"),
    "rating": make_number_column("rating"),
    "read": make_text_column("is_read"),
}
_BOOKS = {
    "item": make_text_column("book_id"),
    "title": make_text_column("title"),
    "desc": make_text_column("description"),
    "publisher": make_text_column("publisher"),
    "year": make_text_column("publication_year"),
}
_MOMENT = "%b %d %H:%M:%S %z %Y"  # Sun Jul 30 07:44:10 -0700 2017, without the day of the week


@dataclass
class Config(SourceConfig):
    """Where the files lie."""

    default_split: ClassVar[SplitMethod] = "leave_one_out"

    path: str = option("", "Folder with one genre's interactions and books, or ONCE's two files.")
    item_text: str = option(
        "{title}", "Template over title and desc; of the Book Graph also publisher, year."
    )


def _read_graph(events: Path, books: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The Book Graph: a row a book on a shelf; rating 0 means that none was given."""
    frame = jsonl.read_records(events, _EVENTS)
    moment = frame["added"].str.slice(4).str.to_datetime(_MOMENT, strict=False, time_unit="ms")
    if moment.null_count():
        row = int(moment.is_null().arg_true()[0])
        raise DataError(
            f"{events}: row {row + 1} has the date_added '{frame['added'][row]}', which is none; "
            "mend or remove it."
        )
    frame = frame.with_columns(
        parse_times(moment, str(events)).alias("time"),
        tabular.parse_numbers(frame["rating"], str(events)).alias("rating"),
        pl.col("read").str.to_lowercase(),
    )
    columns = ("user", "item", "time", "rating", "read")
    return frame.select(columns), jsonl.read_records(books, _BOOKS)


def _read_once(users: Path, books: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """ONCE: ordered histories without times."""
    frame = tabular.read_table(users)
    if not {"uid", "history"} <= set(frame.columns):
        raise DataError(f"{users} lacks uid or history; fetch it again.")
    frame = frame.select(
        user=pl.col("uid").cast(pl.String), item=pl.col("history").cast(pl.List(pl.String))
    )
    items = tabular.read_delimited(books, "\t")
    # Only values with quotes in them are quoted; a quote within another is no error.
    items = items.with_columns(
        pl.coalesce(
            pl.col(name).str.extract('^"(.*)"$').str.replace_all('""', '"', literal=True), name
        )
        for name in items.columns
    )
    if not {"bid", "title"} <= set(items.columns):
        raise DataError(f"{books} lacks bid or title; fetch it again.")
    return frame.explode("item").drop_nulls(), items.rename({"bid": "item"})


def load(cfg: Config) -> Tables:
    """Reads whichever layout the folder has; books without a title are left out.

    Raises:
        DataError: The folder holds neither layout, or a file is damaged.
        ConfigError: The template names an unknown column.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    if any((folder / name).is_file() for name in ("users.jsonl", "users.jsonl.gz")):
        path = tabular.find_file(folder, "users.jsonl", "users.jsonl.gz")
        events, items = _read_once(path, tabular.find_file(folder, "items.tsv", "items.tsv.gz"))
    else:
        shelves, books = (
            sorted(folder.glob(f"goodreads_{sort}*.json*")) for sort in ("interactions", "books")
        )
        tables = sorted(path.name for path in folder.glob("*.csv*"))
        if tables and not (shelves and books):
            raise DataError(
                f"{folder} holds CSV files ({', '.join(tables[:5])}), and this source reads JSON "
                f"lines: {_WHAT}; or read them by the names of their columns with "
                "data.source=tables (data.source.interactions=, data.source.items=)."
            )
        if len(shelves) != 1 or len(books) != 1:
            raise DataError(
                f"{folder} holds {len(shelves)} files goodreads_interactions* and {len(books)} "
                f"goodreads_books*; put one of each there: {_WHAT}."
            )
        path = shelves[0]
        events, items = _read_graph(path, books[0])
    items = items.with_columns(fill_template(items, cfg.item_text))
    events, items, notes = tabular.drop_undescribed(events, items, "goodreads", path)
    return check_tables(
        Tables(events, items, tabular.make_users(events), notes), str(folder), str(path)
    )
