"""Reviews as user texts, so that no query reads a review that is its target's or later.

A user's text is one for all queries. So the first training events of a user give up being targets,
and only their reviews are read: whatever is asked of the user lies later.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from recsys.data.readers.templates import fill_template
from recsys.data.splits.split import TRAIN, Split
from recsys.data.tables import Tables
from recsys.errors import ConfigError


def add_reviews(tables: Tables, split: Split, count: int) -> Tables:
    """Adds the reviews of each user's first training events to the user's text.

    Args:
        tables: With a column `review` of the interactions.
        split: Of these tables.
        count: How many events; `Examples(profile_events=count)` takes none of them for a target.

    Raises:
        ConfigError: There are no reviews.
    """
    if "review" not in tables.interactions.columns:
        raise ConfigError(
            f"data.user_reviews={count} needs the column 'review' of the interactions, which have "
            f"{', '.join(tables.interactions.columns)}; leave it out or name the column."
        )
    user = split.compute_user_rows()
    # A basket counts with its first event: all of it is read, and none of it is a target.
    place = split.compute_history_starts() - split.offsets[user]
    assert split.row is not None
    able = (split.role == TRAIN) & (place < count)
    if split.basket is not None:  # a basket that is held out in part is asked about
        held = np.unique(split.basket[(split.role != TRAIN) & (split.basket >= 0)])
        able &= ~np.isin(split.basket, held)
    read = np.flatnonzero(able)
    found = tables.interactions["review"].gather(split.row[read])
    frame = pl.DataFrame({"row": user[read], "review": found})
    clean = frame.with_columns(fill_template(frame, "{review}")).filter(pl.col("text") != "")
    joined = clean.group_by("row", maintain_order=True).agg(pl.col("text").str.join(" "))
    old = tables.users.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    both = old.join(joined, on="row", how="left", maintain_order="left", suffix="_read")
    text = pl.concat_str(["text", "text_read"], separator=" ", ignore_nulls=True)
    users = both.with_columns(text.str.strip_chars()).select(tables.users.columns)
    note = (
        f"data.user_reviews: {joined.height} of {users.height} users have reviews in their text, "
        f"of their first {count} training events, which are no targets."
    )
    return dataclasses.replace(tables, users=users, notes=(*tables.notes, note))
