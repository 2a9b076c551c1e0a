"""Will the user like this film: the rows of TALLRec's movie task, and a cut of them by time.

Bao et al., TALLRec (RecSys 2023) make a row of each rating of ml-100k that has ten before it: these
ten films, liked (a rating above 3) or not, the film, and whether it was liked. Their code sorts a
user's ratings by time, lets equal times stay in file order, goes through the users as the file
first names them, and keeps the last 10,000 rows: 8,000 train, 1,000 validate, 1,000 test. No row
knows of another user, and users are cut by where they stand in the file: 80, 14 and 16 of them, of
which neighbouring parts share one. The cut by time asks the same of 200 users at once.

A row is a user of its own in the tables that recsys reads, whose text holds the ten films.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.export import ExportSettings, write_tables
from recsys.data.sources import movielens
from recsys.data.tables import Tables

Floats = npt.NDArray[np.float64]

BEFORE = 10
"""Ratings that a row tells."""
LIKED_ABOVE = 3
PRIOR = 10
"""Ratings at the mean rate that join those of every film."""
USERS, ROWS_OF_USER = 200, 5
"""Test users of the cut by time, and the most rows of each."""
CUT, LATEST = 0.8, 200
"""Share of the ratings before the cut by time; rows right before it that validate."""
TRAINING = 8_000
SEED = 0
"""Of what the cut by time draws."""
TABLES = {"tallrec": "as TALLRec cuts them", "tallrec-by-time": "by time"}


def read_ratings(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ratings of ml-100k in the order of TALLRec, and the films with their titles as text.

    Args:
        folder: Of the data set.

    Returns:
        user, item, time (ms), liked, place (of the user in the file); and item, text.
    """
    tables = movielens.load(movielens.Config(path=str(folder), item_text="{title} ({year})"))
    ratings = tables.interactions.with_columns(liked=pl.col("rating") > LIKED_ABOVE)
    first = ratings["user"].unique(maintain_order=True)
    place = pl.col("user").replace_strict(first, np.arange(len(first)), return_dtype=pl.Int64)
    ratings = ratings.select("user", "item", "time", "liked", place=place)
    return ratings.sort("place", "time", maintain_order=True), tables.items.select("item", "text")


def make_rows(ratings: pl.DataFrame) -> pl.DataFrame:
    """A row for each rating with `BEFORE` of the same user before it.

    Args:
        ratings: As `read_ratings` gives them.

    Returns:
        user, item, time, liked, and lists `items` and `likes` of what came before, oldest first.
    """

    def list_before(name: str) -> pl.Expr:
        return pl.concat_list(pl.col(name).shift(n).over("place") for n in range(BEFORE, 0, -1))

    rows = ratings.with_columns(items=list_before("item"), likes=list_before("liked"))
    known = pl.int_range(pl.len()).over("place") >= BEFORE
    return rows.filter(known).drop("place")


def cut_like_tallrec(rows: pl.DataFrame) -> pl.DataFrame:
    """The last 10,000 rows with their part as `split`."""
    parts = [("train", 8_000), ("val", 1_000), ("test", 1_000)]
    names = [name for name, size in parts for _ in range(size)]
    return rows.tail(len(names)).with_columns(split=pl.Series(names))


def cut_by_time(rows: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    """Rows before a moment that train, and some after it of some users that test, as `split`."""
    rng, moment = np.random.default_rng(SEED), find_cut(ratings)
    early = rows.filter(pl.col("time") < moment).sort("time", maintain_order=True)
    train = early.head(len(early) - LATEST)
    at = np.sort(rng.permutation(len(train))[:TRAINING])
    late = rows.filter(pl.col("time") >= moment)
    users = rng.permutation(late["user"].unique(maintain_order=True).to_numpy())[:USERS]
    late = late.filter(pl.col("user").is_in(users.tolist()))
    order = pl.Series("order", rng.permutation(len(late)))
    test = late.with_columns(order).filter(pl.col("order").rank().over("user") <= ROWS_OF_USER)
    parts = {"train": train[at], "val": early.tail(LATEST), "test": test.drop("order")}
    return pl.concat(frame.with_columns(split=pl.lit(name)) for name, frame in parts.items())


def find_cut(ratings: pl.DataFrame) -> int:
    """The moment of the cut by time, in ms."""
    return int(np.quantile(ratings["time"].to_numpy(), CUT, method="lower"))


def write(folder: Path, root: Path) -> None:
    """Writes the tables of both cuts, where they are missing.

    Args:
        folder: In which each has a folder of its name.
        root: Folder of the data sets, with `ml-100k`.
    """
    ratings, items = read_ratings(root / "ml-100k")
    rows = make_rows(ratings)
    titles = dict(items.iter_rows())
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if (folder / name).is_dir():
            continue
        cut = cut_like_tallrec(rows) if name == "tallrec" else cut_by_time(rows, ratings)
        cut = cut.with_row_index("row").with_columns(row=pl.format("row{}", "row"))
        users = cut.select(
            user="row",
            text=pl.struct("items", "likes").map_elements(
                lambda row: describe_taste([titles[i] for i in row["items"]], row["likes"]),
                return_dtype=pl.String,
            ),
            rater="user",
            share=pl.col("likes").list.eval(pl.element().cast(pl.Float64)).list.mean(),
            rate=pl.Series(compute_like_rates(cut, ratings, name)),
        )
        events = cut.select("item", "split", user="row", rating=pl.col("liked").cast(pl.Float64))
        columns = ["user", "item", "rating", "split"]
        tables = Tables(events.select(columns), items, users)
        write_tables(folder / name, tables, ExportSettings("given", {}))


def describe_taste(titles: list[str], likes: list[bool]) -> str:
    """What the ten ratings say, in the words of TALLRec."""
    kinds = {"User Preference": True, "User Unpreference": False}
    return "\n".join(
        f"{name}: "
        + ", ".join(f'"{t}"' for t, liked in zip(titles, likes, strict=True) if liked == wanted)
        for name, wanted in kinds.items()
    )


def compute_like_rates(rows: pl.DataFrame, ratings: pl.DataFrame, name: str) -> Floats:
    """(N,) how often other users like each row's film; of the cut by time those before it alone.

    Args:
        rows: The rows.
        ratings: All ratings.
        name: Of the table.
    """
    if name != "tallrec":
        ratings = ratings.filter(pl.col("time") < find_cut(ratings))
    mean = float(ratings["liked"].cast(pl.Float64).mean())  # type: ignore[arg-type]
    all_ = ratings.group_by("item").agg(fans=pl.col("liked").sum(), count=pl.len())
    own = ratings.group_by("user", "item").agg(own=pl.col("liked").sum(), seen=pl.len())
    joined = rows.join(all_, "item", "left", maintain_order="left")
    joined = joined.join(own, ["user", "item"], "left", maintain_order="left").fill_null(0)
    fans = (joined["fans"] - joined["own"]).to_numpy().astype(np.float64)
    count = (joined["count"] - joined["seen"]).to_numpy().astype(np.float64)
    rates: Floats = (fans + PRIOR * mean) / (count + PRIOR)
    return rates


def score_floors(folder: Path) -> pl.DataFrame:
    """The test rows of a table: user (the row), rater, liked, and scores of each floor.

    Args:
        folder: Of the table.
    """
    events = pl.read_parquet(folder / "interactions.parquet").filter(pl.col("split") == "test")
    users = pl.read_parquet(folder / "users.parquet")
    rows = events.join(users, "user", maintain_order="left")
    both = rows["share"] + 2 * rows["rate"]  # of films as of tastes, whose rates spread less
    return rows.select(
        "user", "rater", "share", "rate", both=both, liked=pl.col("rating").cast(pl.Boolean)
    )
