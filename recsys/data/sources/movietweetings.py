"""MovieTweetings: ratings from 0 to 10 that people tweeted, in "::"-separated files.

Page: https://github.com/sidooms/MovieTweetings, folders `latest` and `snapshots`. The files grow
daily, so there is no checksum. users.dat, which names Twitter accounts, is not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from recsys.data import reading
from recsys.data.tables import Tables, check
from recsys.data.text import fill
from recsys.data.times import parse_times

_WHAT = "ratings.dat and movies.dat of https://github.com/sidooms/MovieTweetings"


@dataclass
class Config:
    """Where the two files lie."""

    default_split: ClassVar[Literal["leave_one_out", "time", "given"]] = "time"

    path: str = field(default="", metadata={"help": "Folder of ratings.dat and movies.dat."})
    item_text: str = field(
        default="{title} ({year}). {genres}",
        metadata={"help": "Template of an item's text over title, year, genres."},
    )


def load(cfg: Config) -> Tables:
    """Reads both files; films without a title are left out.

    Raises:
        DataError: A file is missing or damaged.
        ConfigError: The template names an unknown column.
    """
    folder = reading.folder(cfg.path, _WHAT)
    ratings, movies = reading.find(folder, "ratings.dat"), reading.find(folder, "movies.dat")
    events = reading.delimited(ratings, "::", ["user", "item", "rating", "time"])
    events = events.with_columns(
        parse_times(events["time"], str(ratings)).alias("time"),
        reading.numbers(events["rating"], str(ratings)).alias("rating"),
    )
    items = reading.split_year(reading.delimited(movies, "::", ["item", "title", "genres"]))
    items = items.with_columns(fill(items, cfg.item_text, barred=["genres"]))
    events, items, notes = reading.described(events, items, "movietweetings", ratings)
    return check(Tables(events, items, reading.users_of(events), notes), str(folder), str(ratings))
