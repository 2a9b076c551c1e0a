"""From the `data` group of a run to tables and their split, the same for every command."""

from __future__ import annotations

import dataclasses
import importlib

import polars as pl

from recsys.config.compose import get_choice_name
from recsys.config.schema import DataOptions
from recsys.data import filters
from recsys.data.columns.times import describe_unlikely_times
from recsys.data.reviews import add_reviews
from recsys.data.splits.availability import AvailabilityWindows
from recsys.data.splits.methods import Method, make_split
from recsys.data.splits.split import Split
from recsys.data.tables import Tables, check_tables, check_weights, limit_tables
from recsys.errors import ConfigError

LEARNING = (
    "queries",
    "queries_per_user",
    "targets",
    "negatives",
    "hard_from",
    "hard_top",
    "hard_skip",
    "hard_share",
    "max_history",
    "max_tokens",
    "train_users",
    "query_column",
    "augment",
)
"""Options of `data` that say what a model learns from the tables, and change none of them."""


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """Tables and split, for further runs on the same data.

    Attributes:
        options: What they were made by.
        tables: The tables.
        split: Their split.
    """

    options: DataOptions
    tables: Tables
    split: Split

    @classmethod
    def prepare(cls, data: DataOptions) -> PreparedData:
        """As `prepare_data`."""
        return cls(data, *prepare_data(data))

    def fits(self, data: DataOptions) -> bool:
        """Whether other options make the same of the same files."""
        names = [f.name for f in dataclasses.fields(data) if f.name not in LEARNING]
        return all(getattr(data, name) == getattr(self.options, name) for name in names)


def load_tables(data: DataOptions) -> Tables:
    """Loads, checks, filters and limits the tables.

    Args:
        data: The options; `source` is the `Config` of a source.

    Raises:
        ConfigError: An option does not fit the data.
        DataError: A file, row or column cannot be used, or nothing is left.
    """
    name = get_choice_name(data.source)
    module = importlib.import_module(type(data.source).__module__)
    found = filters.filter_tables(
        check_tables(module.load(data.source), name),
        event_column=data.event_column,
        event_types=data.event_types,
        since=data.since,
        until=data.until,
        min_rating=data.min_rating,
        repeats=data.repeats,
        min_text=data.min_text,
        k_core=data.k_core,
    )
    if "weight" in found.interactions.columns:  # event types have weights as well
        check_weights(found.interactions["weight"], f"{name}: interactions after the filters")
    if data.max_users is not None or data.max_items is not None:
        found = limit_tables(found, data.max_users, data.max_items, data.sample_seed)
    if data.max_items is not None:
        said = (
            "data.max_items: uses are counted before the split, those that it holds out included."
        )
        found = dataclasses.replace(found, notes=(*found.notes, said))
    return found


def find_split_method(data: DataOptions) -> Method:
    """The way to split that is asked for, or that the source proposes."""
    if data.split != "default":
        return data.split
    return data.source.default_split


def split_tables(data: DataOptions, found: Tables) -> Split:
    """Splits tables as the options say, or as the source proposes.

    Raises:
        ConfigError: The split does not fit the data.
        DataError: The given parts overlap.
    """
    events = found.interactions
    if data.positive_from is None and {"impression", "rating"} <= set(events.columns):
        shown = events.filter(pl.col("impression").is_not_null() & (pl.col("rating") <= 0))
        if not shown.is_empty():
            raise ConfigError(
                f"{shown.height} rows are items of impressions that were not clicked (rating 0), "
                "and would count as liked; set data.positive_from=1."
            )
    return make_split(
        found,
        find_split_method(data),
        positive_from=data.positive_from,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.sample_seed,
    )


def prepare_data(data: DataOptions) -> tuple[Tables, Split]:
    """Tables and split, user texts included; the split's notes begin with those of the tables.

    Raises:
        ConfigError: An option does not fit the data.
        DataError: A file, row or column cannot be used, or nothing is left.
    """
    found = load_tables(data)
    made = split_tables(data, found)
    if data.user_reviews:
        found = add_reviews(found, made, data.user_reviews)
    notes = (*found.notes, *made.notes)
    if made.time is not None:
        notes += tuple(describe_unlikely_times(int(made.time.min()), int(made.time.max())))
    if made.time is None and AvailabilityWindows.from_items(found.items) is not None:
        why, remedy = "the interactions have no times", "name the time column to use them"
        if find_split_method(data) == "random":
            why, remedy = "data.split=random has no times", "use another split with them"
        notes += (
            f"availability: {why}, so that the items' available_from and available_until play no "
            f"part; {remedy}.",
        )
    return found, dataclasses.replace(made, notes=notes)
