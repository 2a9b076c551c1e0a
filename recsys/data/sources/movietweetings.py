"""MovieTweetings: ratings from 0 to 10 that people tweeted, in "::"-separated files.

Page: https://github.com/sidooms/MovieTweetings, folders `latest` and `snapshots`. The files grow
daily, so there is no checksum. users.dat, which names Twitter accounts, is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables

_WHAT = "ratings.dat and movies.dat of https://github.com/sidooms/MovieTweetings"


@dataclass
class Config(SourceConfig):
    """Where the two files lie."""

    default_split: ClassVar[SplitMethod] = "time"
    text_lists: ClassVar[tuple[str, ...]] = ("genres",)

    path: str = option("", "Folder of ratings.dat and movies.dat.")
    item_text: str = option(
        "{title} ({year}). {genres}", "Template of an item's text over title, year, genres."
    )


def load(cfg: Config) -> Tables:
    """Reads both files; films without a title are left out.

    Raises:
        DataError: A file is missing or damaged.
        ConfigError: The template names an unknown column.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    ratings, movies = (
        tabular.find_file(folder, "ratings.dat"),
        tabular.find_file(folder, "movies.dat"),
    )
    events = tabular.read_delimited(ratings, "::", ["user", "item", "rating", "time"])
    events = events.with_columns(
        parse_times(events["time"], str(ratings)).alias("time"),
        tabular.parse_numbers(events["rating"], str(ratings)).alias("rating"),
    )
    items = tabular.split_year(tabular.read_delimited(movies, "::", ["item", "title", "genres"]))
    items = items.with_columns(fill_template(items, cfg.item_text, barred=cfg.text_lists))
    events, items, notes = tabular.drop_undescribed(events, items, "movietweetings", ratings)
    return check_tables(
        Tables(events, items, tabular.make_users(events), notes), str(folder), str(ratings)
    )
