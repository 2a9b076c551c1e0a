"""JSON lines with field names of their own, as Steam's and Yelp's; the defaults are Yelp's.

Pages: "Yelp Open Dataset" (yelp_academic_dataset_review.json and _business.json); "Steam Video
Game and Bundle Data" (McAuley, UCSD), whose lines are Python literals and are read as well. No
checksums are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import jsonl, tabular
from recsys.data.readers.jsonl import ColumnSpec, make_number_column, make_text_column
from recsys.data.readers.templates import fill_template, list_template_columns
from recsys.data.tables import WINDOWS, Tables, check_tables, parse_windows
from recsys.errors import ConfigError, DataError

_WHAT = "a file with an object an interaction and one with an object an item, one object a line"


@dataclass
class Config(SourceConfig):
    """The files and which of their fields is what."""

    default_split: ClassVar[SplitMethod] = "time"

    path: str = option("", "Folder of the files, plain or .gz.")
    interactions: str = option("yelp_academic_dataset_review.json", "File of interactions.")
    items: str = option("yelp_academic_dataset_business.json", "File of items.")
    users: str = option("", "File of users; empty: none.")
    user: str = option("user_id", "Field of the user id.")
    item: str = option("business_id", "Field of the item id.")
    items_id: str = option("", "Field of the item id in the items' file; empty: as item.")
    time: str = option("date", "Field of the time; empty: none.")
    rating: str = option("stars", "Field of the rating; empty: none.")
    weight: str = option("", "Field of the weight; empty: none.")
    review: str = option("text", "Field of the review; empty: none.")
    further: list[str] = option([], "Further fields of interactions to keep.")
    item_text: str = option("{name}. {categories}. {city}", "Template over items' fields.")
    user_text: str = option("", "Template over users' fields.")


def _find_path(cfg: Config, file: str) -> Path:
    return tabular.find_file(tabular.check_folder(cfg.path, _WHAT), file, f"{file}.gz")


def _read_columns(cfg: Config, file: str, columns: dict[str, ColumnSpec]) -> pl.DataFrame:
    """The columns of a file in the folder.

    Raises:
        ConfigError: No record has one of the fields.
    """
    path = _find_path(cfg, file)
    frame = jsonl.read_records(path, columns)
    for name, key in columns.items():
        if name not in WINDOWS and frame[name].null_count() == frame.height:
            raise ConfigError(f"{path}: no line has the field '{key.names[0]}' ({name}).")
    return frame


def _read_events(cfg: Config) -> pl.DataFrame:
    wanted = {"user": make_text_column(cfg.user), "item": make_text_column(cfg.item)}
    if cfg.time:
        wanted["time"] = make_text_column(cfg.time)
    wanted |= {
        n: make_number_column(f) for n, f in (("rating", cfg.rating), ("weight", cfg.weight)) if f
    }
    if cfg.review:
        wanted["review"] = make_text_column(cfg.review)
    taken = [name for name in cfg.further if name in wanted]
    if taken:
        raise ConfigError(f"data.source.further: '{taken[0]}' is read already; leave it out.")
    events = _read_columns(
        cfg, cfg.interactions, wanted | {name: make_text_column(name) for name in cfg.further}
    )
    where = str(_find_path(cfg, cfg.interactions))
    if cfg.time:
        events = events.with_columns(parse_times(events["time"], where).alias("time"))
    for name in (n for n in ("rating", "weight") if n in wanted):
        events = events.with_columns(tabular.parse_numbers(events[name], where).alias(name))
    return events


def load(cfg: Config) -> Tables:
    """Reads the files; items without a text and interactions with unknown items are left out.

    Raises:
        ConfigError: A field or template does not fit the files.
        DataError: A file is missing or damaged.
    """
    if not cfg.interactions or not cfg.items:
        raise DataError("Set data.source.interactions and data.source.items to two file names.")
    events, where = _read_events(cfg), str(_find_path(cfg, cfg.interactions))
    own = {name: make_text_column(name) for name in list_template_columns(cfg.item_text)} | {
        n: make_text_column(n) for n in WINDOWS
    }
    items = _read_columns(
        cfg, cfg.items, own | {"item": make_text_column(cfg.items_id or cfg.item)}
    )
    empty = [name for name in WINDOWS if items[name].null_count() == items.height]
    kept = items.drop(empty).filter(pl.col("item").is_not_null())
    items = parse_windows(kept, str(_find_path(cfg, cfg.items)))
    items = items.with_columns(fill_template(items, cfg.item_text))
    events, items, notes = tabular.drop_undescribed(events, items, "jsonl", where)
    users = tabular.make_users(events)
    if cfg.users:
        profile = {name: make_text_column(name) for name in list_template_columns(cfg.user_text)}
        found = _read_columns(cfg, cfg.users, {"user": make_text_column(cfg.user)} | profile)
        found = found.with_columns(fill_template(found, cfg.user_text)).unique("user", keep="first")
        users = users.select("user").join(found, on="user", how="left", maintain_order="left")
        users = users.with_columns(pl.col("text").fill_null(""))
    elif cfg.user_text:
        raise ConfigError("data.source.user_text needs data.source.users, the file of its fields.")
    return check_tables(Tables(events, items, users, notes), cfg.path, where)
