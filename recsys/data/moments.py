"""What users said up to an event, as texts: a dialogue so far, a query of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config.schema import DataOptions
from recsys.data.splits.split import Split
from recsys.data.tables import IdMap, Tables
from recsys.errors import ConfigError

Ints = npt.NDArray[np.int64]

MOMENT = "text of the moment"
"""Its name among the codes of a query's context, which no column that can be named has."""

_NONE = "none"
_TAKEN = ("user", "item", "rating", "weight", "label", "time", "split", "review", "impression")


@dataclass(frozen=True)
class MomentTexts:
    """The texts of all events, each once.

    Attributes:
        codes: (N,) the text of each event, in the split's order; 0 where there is none.
        texts: By code, the first one empty.
        now: (U,) the text of each user after all that is known, where the users' table says; 0
            where it does not.
    """

    codes: Ints
    texts: tuple[str, ...]
    now: Ints

    @classmethod
    def from_users(cls, said: pl.Series, events: int) -> MomentTexts:
        """What users have said by now, where nothing is known of the events before.

        Args:
            said: (U,) texts, empty where there is none.
            events: N, how many events there are.
        """
        texts = ["", *said.filter(said != "").unique(maintain_order=True).to_list()]
        now = IdMap(texts, "text").get_rows(said)
        return cls(np.zeros(events, dtype=np.int64), tuple(texts), now)


def find_query_column(data: DataOptions) -> str | None:
    """The column of what users said before an event: as asked for, or as the source has it."""
    if data.query_column == _NONE:
        return None
    return data.source.query_column if data.query_column is None else data.query_column


def check_query_column(data: DataOptions, tables: Tables) -> None:
    """Refuses a column of texts that cannot be asked with.

    Args:
        data: The options.
        tables: The data set.

    Raises:
        ConfigError: There is no such column, it holds no texts, or it says what came of an event.
    """
    name = find_query_column(data)
    if name is None:
        return
    frame = tables.interactions
    key = f"data.query_column={name}"
    if name in (*_TAKEN, data.event_column):
        raise ConfigError(
            f"{key} names the event or tells what came of it, which is not known when a "
            "recommendation is asked for; leave it out."
        )
    if name not in frame.columns:
        raise ConfigError(
            f"{key}: the interactions have no such column (there are: "
            f"{', '.join(c for c in frame.columns if c not in _TAKEN)})."
        )
    if frame[name].dtype not in (pl.String, pl.Enum, pl.Categorical):
        raise ConfigError(
            f"{key} is {frame[name].dtype}, and the text of a query is made of texts; name another "
            "column, or use architecture.context for kinds and numbers."
        )


def make_moment_texts(data: DataOptions, tables: Tables, split: Split) -> MomentTexts | None:
    """The texts of the column that is asked for; None where none is.

    A column of that name in the users' table is what each of them has said by now, for whoever
    asks for a recommendation after the last event.

    Args:
        data: The options.
        tables: The data set.
        split: Its events.

    Raises:
        ConfigError: There is no such column, it holds no texts, or it says what came of an event.
    """
    name = find_query_column(data)
    if name is None:
        return None
    check_query_column(data, tables)
    if split.row is None:
        raise ConfigError(
            f"data.query_column={name} needs the row of each event, which a split made by hand "
            "lacks; give it as Split.row."
        )
    frame = tables.interactions
    of_events = _clean(frame[name])
    of_users = _clean(tables.users[name]) if name in tables.users.columns else None
    every = of_events if of_users is None else pl.concat([of_events, of_users])
    texts = ["", *every.filter(every != "").unique(maintain_order=True).to_list()]
    lookup = IdMap(texts, "text")
    return MomentTexts(
        codes=lookup.get_rows(of_events)[split.row],
        texts=tuple(texts),
        now=np.zeros(tables.users.height, dtype=np.int64)
        if of_users is None
        else lookup.get_rows(of_users),
    )


def _clean(column: pl.Series) -> pl.Series:
    """Texts without blanks at their ends; an empty one where there is none."""
    return column.cast(pl.String).fill_null("").str.strip_chars().alias("text")


def keep_last_words(text: str, count: int) -> str:
    """The end of a text, from one of its last words on: as many words hold as many tokens or more.

    Args:
        text: A text.
        count: How many words.
    """
    words = text.rsplit(maxsplit=count)
    return text if len(words) <= count else text[len(words[0]) :].lstrip()
