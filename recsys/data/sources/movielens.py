"""MovieLens in the four layouts it is passed around in.

ml-100k (u.data, u.item, u.user), ml-1m and ml-10m (.dat), ml-20m, ml-25m, ml-32m and ml-latest
(.csv), and RecBole's atomic files (.inter, .item, .user). Page:
https://grouplens.org/datasets/movielens/, with MD5 of the archives; ml-100k.zip has the one that
`quickstart` checks. Layouts and codes: the README files of the archives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
_WHAT = "an archive of https://grouplens.org/datasets/movielens/, unpacked"
_AGES = {"1": "under 18", "56": "56 or older"}  # ml-1m; its other codes are a span's first year
_JOBS = [
    "other",
    "academic",
    "artist",
    "clerical",
    "college student",
    "customer service",
    "doctor",
    "executive",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales",
    "scientist",
    "self-employed",
    "technician",
    "tradesman",
    "unemployed",
    "writer",
]
_RATINGS = ["user", "item", "rating", "time"]
_RENAMED = {
    "user_id": "user",
    "userId": "user",
    "item_id": "item",
    "movieId": "item",
    "timestamp": "time",
    "movie_title": "title",
    "release_year": "year",
    "class": "genres",
    "genre": "genres",
}


@dataclass
class Config(SourceConfig):
    """Where MovieLens lies and how its texts are made."""

    default_split: ClassVar[SplitMethod] = "leave_one_out"
    text_lists: ClassVar[tuple[str, ...]] = ("genres",)

    path: str = option("", "Folder of the unpacked MovieLens files.")
    item_text: str = option(
        "{title} ({year}). {genres}", "Template of an item's text over title, year, genres."
    )
    user_text: str = option(
        "{age}, {gender}, {occupation}",
        "Template of a user's text; unused where the set has no profiles; empty: none.",
    )


class _LayoutFrames(NamedTuple):
    """What a layout holds.

    Attributes:
        path: File of the ratings, for messages.
        events: The ratings.
        items: The films.
        users: The profiles, where there are any.
        lean: Whether ratings, times, years and genres may be missing.
    """

    path: Path
    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame | None
    lean: bool = False


def _read_original(folder: Path) -> _LayoutFrames:
    """ml-100k: 19 flags stand for the genres."""
    names = ["item", "title", "released", "video", "url", *_GENRES]
    items = tabular.read_delimited(folder / "u.item", "|", names, latin=True)
    genres = pl.concat_list(
        [pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in _GENRES[1:]]
    ).list.drop_nulls()
    items = items.select("item", "title", genres=genres.list.join("|"))
    profile = ["user", "age", "gender", "occupation", "zip"]
    users = tabular.read_delimited(folder / "u.user", "|", profile, latin=True)
    path = folder / "u.data"
    return _LayoutFrames(path, tabular.read_delimited(path, "\t", _RATINGS), items, users)


def _read_dat(folder: Path) -> _LayoutFrames:
    """ml-1m: Latin-1, "::" between columns, codes for age and occupation; ml-10m: no profiles."""
    path = folder / "ratings.dat"
    events = tabular.read_delimited(path, "::", _RATINGS)
    films = ["item", "title", "genres"]
    items = tabular.read_delimited(folder / "movies.dat", "::", films, latin=True)
    if not (folder / "users.dat").is_file():
        return _LayoutFrames(path, events, items, None)
    profile = ["user", "gender", "age", "occupation", "zip"]
    users = tabular.read_delimited(folder / "users.dat", "::", profile, latin=True).with_columns(
        pl.col("age").replace(_AGES),
        pl.col("occupation").replace({str(n): job for n, job in enumerate(_JOBS)}),
    )
    return _LayoutFrames(path, events, items, users)


def _read_csv(folder: Path) -> _LayoutFrames:
    """ml-latest, ml-20m, ml-25m, ml-32m: no profiles."""
    path = folder / "ratings.csv"
    events = tabular.read_table(path, numeric=("rating", "timestamp"))
    items = tabular.read_table(folder / "movies.csv")
    return _LayoutFrames(path, _rename_columns(events), _rename_columns(items), None)


def _read_recbole(folder: Path) -> _LayoutFrames:
    """RecBole's atomic files: a header with types, lists separated by blanks.

    Ratings and times are there in some sets only; what the default template lacks counts as empty.
    """
    stem = next(iter(sorted(folder.glob("*.inter")))).with_suffix("")
    items = _rename_columns(
        tabular.read_delimited(tabular.find_file(folder, f"{stem.name}.item"), "\t")
    )
    if "genres" in items.columns:
        items = items.with_columns(pl.col("genres").str.replace_all(" ", "|", literal=True))
    profile = folder / f"{stem.name}.user"
    users = _rename_columns(tabular.read_delimited(profile, "\t")) if profile.is_file() else None
    path = folder / f"{stem.name}.inter"
    if "title" in items.columns and "genres" not in items.columns:
        items = items.with_columns(genres=pl.lit(None, pl.String))
    return _LayoutFrames(
        path, _rename_columns(tabular.read_delimited(path, "\t")), items, users, lean=True
    )


def _rename_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Our names for the columns; a type after a colon goes."""
    plain = {name: name.split(":")[0] for name in frame.columns}
    return frame.rename({old: _RENAMED.get(new, new) for old, new in plain.items()})


def _read_layout(folder: Path) -> _LayoutFrames:
    if (folder / "u.data").is_file():
        return _read_original(folder)
    if (folder / "ratings.dat").is_file():
        return _read_dat(folder)
    if (folder / "ratings.csv").is_file():
        return _read_csv(folder)
    if any(folder.glob("*.inter")):
        return _read_recbole(folder)
    raise DataError(
        f"{folder} holds no MovieLens set (u.data, ratings.dat, ratings.csv or *.inter); fetch "
        f"{_WHAT}, and set data.source.path to the unpacked folder."
    )


def load(cfg: Config) -> Tables:
    """Reads the folder, whichever layout it has.

    Raises:
        DataError: The folder holds none of the layouts, or a file is damaged.
        ConfigError: A template names an unknown column.
    """
    folder = tabular.check_folder(cfg.path, _WHAT)
    path, events, items, profiles, lean = _read_layout(folder)
    for name, frame, needed in (
        ("ratings", events, ["user", "item"] if lean else _RATINGS),
        ("movies", items, ["item"] if lean else ["item", "title"]),
        ("users", profiles, ["user"]),
    ):
        missing = [n for n in needed if frame is not None and n not in frame.columns]
        if missing and frame is not None:
            remedy = "fetch the set again"
            if lean:
                remedy = (
                    f"their columns are {', '.join(frame.columns)}: name the one that holds it in "
                    "the header, or use data.source=tables data.source.separator='\\t'"
                )
            raise DataError(f"{folder}: {name} lack the column {missing[0]}; {remedy}.")
    if "time" in events.columns:
        events = events.with_columns(parse_times(events["time"], str(path)).alias("time"))
    if "rating" in events.columns:
        events = events.with_columns(
            tabular.parse_numbers(events["rating"], str(path)).alias("rating")
        )
    if "year" not in items.columns and "title" in items.columns:
        items = tabular.split_year(items)
    if "genres" in items.columns:
        # The set's own way to say that it knows none.
        items = items.with_columns(pl.col("genres").replace("(no genres listed)", None))
    items = items.with_columns(fill_template(items, cfg.item_text, barred=cfg.text_lists))
    if profiles is None:
        users = tabular.make_users(events)
    else:
        users = profiles.with_columns(fill_template(profiles, cfg.user_text))
    return check_tables(Tables(events, items, users), str(folder), str(path))
