"""Amazon Reviews 2014, 2018 and 2023: the original JSON lines of reviews and product data.

Pages: https://amazon-reviews-2023.github.io/ (Hou et al. 2024) and, for 2018 and 2014,
https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/ (Ni, Li and McAuley 2019), which names that of
"Amazon product data"; no checksums are known. Each edition has its own names of fields. The text of
a review is the column `review`: `data.user_reviews` makes user texts of it without letting a later
one through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import DataOptions, SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import jsonl, tabular
from recsys.data.readers.jsonl import make_number_column, make_text_column
from recsys.data.readers.templates import fill_template, strip_markup
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_WHAT = (
    "a category's reviews and its meta_ file from https://amazon-reviews-2023.github.io/ or "
    "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/"
)
_REVIEWS = {
    "user": make_text_column("user_id", "reviewerID"),
    "item": make_text_column("parent_asin", "asin"),
    "time": make_number_column("timestamp", "unixReviewTime"),
    "rating": make_number_column("rating", "overall"),
    "review": make_text_column("text", "reviewText"),
}
_META = {
    "item": make_text_column("parent_asin", "asin"),
    "title": make_text_column("title"),
    "brand": make_text_column("store", "brand"),
    "category": make_text_column("main_category", "main_cat"),
    "categories": make_text_column("categories", "category"),
    "description": make_text_column("description"),
    "features": make_text_column("features", "feature"),
}
_KINDS = (".json", ".jsonl", ".csv", ".tsv")


@dataclass
class Config(SourceConfig):
    """Where the two files lie."""

    default_split: ClassVar[SplitMethod] = "time"

    path: str = option("", "Folder with a file of reviews and one of products.")
    reviews: str = option("", "File name of the reviews; empty: the only one there.")
    meta: str = option(
        "",
        "File name of the products (or a .tsv of id and title); empty: the only meta_*, or .tsv.",
    )
    item_text: str = option(
        "{title}. {brand}. {categories}. {features} {description}",
        "Template over title, brand, category, categories, features, description.",
    )
    keep_reviews: bool | None = option(
        None,
        "Keep the text of each review as the column review, three times the memory; "
        "null: where data.user_reviews asks for it.",
    )

    def apply_data_options(self, data: DataOptions) -> None:
        """Keeps reviews where user texts are made of them, unless it was told."""
        if self.keep_reviews is None:
            self.keep_reviews = data.user_reviews > 0


def _find_file(folder: Path, name: str, products: bool) -> Path:
    """The file of a name, else the only one of its sort.

    Raises:
        DataError: It is not there, or there are several.
    """
    if name:
        return tabular.find_file(folder, name)
    found = [
        path
        for path in sorted(folder.iterdir())
        if (path.with_suffix("") if path.suffix == ".gz" else path).suffix in _KINDS
        and (path.name.startswith("meta_") or ".tsv" in path.suffixes) == products
    ]
    if len(found) != 1:
        key, sort = ("meta", "products") if products else ("reviews", "reviews")
        raise DataError(
            f"{folder} holds {len(found)} files of {sort}; fetch {_WHAT}, or set "
            f"data.source.{key} to one file name."
        )
    return found[0]


def _read_records(path: Path, columns: dict[str, jsonl.ColumnSpec]) -> pl.DataFrame:
    """The columns from JSON lines, or from the CSV or two-column TSV that some pass around."""
    if ".tsv" in path.suffixes:
        frame = tabular.read_delimited(path, "\t", ["item", "title"])
        return frame.with_columns(pl.lit(None, pl.String).alias(n) for n in list(columns)[2:])
    if ".csv" not in path.suffixes:
        return jsonl.read_records(path, columns)
    frame, out = tabular.read_table(path), []
    for name, key in columns.items():
        theirs = [n for n in key.names if n in frame.columns]
        kind = pl.Float64 if key.kind == "number" else pl.String
        value = pl.col(theirs[0]) if theirs else pl.lit(None)
        out.append(value.cast(kind, strict=False).alias(name))
    return frame.select(out)


def load(cfg: Config) -> Tables:
    """Reads reviews and products; products that nobody reviewed stay in the catalog.

    Raises:
        DataError: A file is missing or damaged, or a review lacks user, product, time or rating.
        ConfigError: The template names an unknown column.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    path, meta = _find_file(folder, cfg.reviews, False), _find_file(folder, cfg.meta, True)
    wanted = {k: v for k, v in _REVIEWS.items() if k != "review" or cfg.keep_reviews}
    events = _read_records(path, wanted)
    for name in ("user", "item"):
        if events[name].null_count():
            row = int(events[name].is_null().arg_true()[0])
            raise DataError(f"{path}: row {row + 1} names no {name}; mend or remove it.")
    events = events.with_columns(
        parse_times(events["time"], str(path)).alias("time"),
        tabular.parse_numbers(events["rating"], str(path)).alias("rating"),
    )
    items = _read_records(meta, _META).filter(pl.col("item").is_not_null())
    # Pages that were parsed wrongly have a script for a title; others carry tags.
    items = items.with_columns(
        pl.when(~pl.col("title").str.contains("getTime")).then("title").alias("title")
    )
    items = items.with_columns(
        pl.Series(name, [strip_markup(value) for value in items[name]], dtype=pl.String)
        for name in items.columns
        if name != "item"
    )
    items = items.with_columns(fill_template(items, cfg.item_text))
    events, items, notes = tabular.drop_undescribed(events, items, "amazon", path)
    return check_tables(
        Tables(events, items, tabular.make_users(events), notes), str(folder), str(path)
    )
