"""JSON lines with field names of their own, as Steam's and Yelp's; the defaults are Yelp's.

Pages: "Yelp Open Dataset" (yelp_academic_dataset_review.json and _business.json); "Steam Video
Game and Bundle Data" (McAuley, UCSD), whose lines are Python literals and are read as well. No
checksums are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from recsys.data.columns.times import parse_times
from recsys.data.readers import jsonl, tabular
from recsys.data.readers.jsonl import Key, number, text
from recsys.data.readers.templates import fill, names
from recsys.data.tables import WINDOWS, Tables, check, windows
from recsys.errors import ConfigError, DataError

_WHAT = "a file with an object an interaction and one with an object an item, one object a line"


@dataclass
class Config:
    """The files and which of their fields is what."""

    default_split: ClassVar[Literal["leave_one_out", "time", "given"]] = "time"

    path: str = field(default="", metadata={"help": "Folder of the files, plain or .gz."})
    interactions: str = field(
        default="yelp_academic_dataset_review.json", metadata={"help": "File of interactions."}
    )
    items: str = field(
        default="yelp_academic_dataset_business.json", metadata={"help": "File of items."}
    )
    users: str = field(default="", metadata={"help": "File of users; empty: none."})
    user: str = field(default="user_id", metadata={"help": "Field of the user id."})
    item: str = field(default="business_id", metadata={"help": "Field of the item id."})
    items_id: str = field(
        default="", metadata={"help": "Field of the item id in the items' file; empty: as item."}
    )
    time: str = field(default="date", metadata={"help": "Field of the time; empty: none."})
    rating: str = field(default="stars", metadata={"help": "Field of the rating; empty: none."})
    weight: str = field(default="", metadata={"help": "Field of the weight; empty: none."})
    review: str = field(default="text", metadata={"help": "Field of the review; empty: none."})
    further: list[str] = field(
        default_factory=list, metadata={"help": "Further fields of interactions to keep."}
    )
    item_text: str = field(
        default="{name}. {categories}. {city}", metadata={"help": "Template over items' fields."}
    )
    user_text: str = field(default="", metadata={"help": "Template over users' fields."})


def _path(cfg: Config, file: str) -> Path:
    return tabular.find(tabular.folder(cfg.path, _WHAT), file, f"{file}.gz")


def _read(cfg: Config, file: str, columns: dict[str, Key]) -> pl.DataFrame:
    """The columns of a file in the folder.

    Raises:
        ConfigError: No record has one of the fields.
    """
    path = _path(cfg, file)
    frame = jsonl.records(path, columns)
    for name, key in columns.items():
        if name not in WINDOWS and frame[name].null_count() == frame.height:
            raise ConfigError(f"{path}: no line has the field '{key.names[0]}' ({name}).")
    return frame


def _events(cfg: Config) -> pl.DataFrame:
    wanted = {"user": text(cfg.user), "item": text(cfg.item)}
    if cfg.time:
        wanted["time"] = text(cfg.time)
    wanted |= {n: number(f) for n, f in (("rating", cfg.rating), ("weight", cfg.weight)) if f}
    if cfg.review:
        wanted["review"] = text(cfg.review)
    taken = [name for name in cfg.further if name in wanted]
    if taken:
        raise ConfigError(f"data.source.further: '{taken[0]}' is read already; leave it out.")
    events = _read(cfg, cfg.interactions, wanted | {name: text(name) for name in cfg.further})
    where = str(_path(cfg, cfg.interactions))
    if cfg.time:
        events = events.with_columns(parse_times(events["time"], where).alias("time"))
    for name in (n for n in ("rating", "weight") if n in wanted):
        events = events.with_columns(tabular.numbers(events[name], where).alias(name))
    return events


def load(cfg: Config) -> Tables:
    """Reads the files; items without a text and interactions with unknown items are left out.

    Raises:
        ConfigError: A field or template does not fit the files.
        DataError: A file is missing or damaged.
    """
    if not cfg.interactions or not cfg.items:
        raise DataError("Set data.source.interactions and data.source.items to two file names.")
    events, where = _events(cfg), str(_path(cfg, cfg.interactions))
    own = {name: text(name) for name in names(cfg.item_text)} | {n: text(n) for n in WINDOWS}
    items = _read(cfg, cfg.items, own | {"item": text(cfg.items_id or cfg.item)})
    empty = [name for name in WINDOWS if items[name].null_count() == items.height]
    kept = items.drop(empty).filter(pl.col("item").is_not_null())
    items = windows(kept, str(_path(cfg, cfg.items)))
    items = items.with_columns(fill(items, cfg.item_text))
    events, items, notes = tabular.described(events, items, "jsonl", where)
    users = tabular.users_of(events)
    if cfg.users:
        profile = {name: text(name) for name in names(cfg.user_text)}
        found = _read(cfg, cfg.users, {"user": text(cfg.user)} | profile)
        found = found.with_columns(fill(found, cfg.user_text)).unique("user", keep="first")
        users = users.select("user").join(found, on="user", how="left", maintain_order="left")
        users = users.with_columns(pl.col("text").fill_null(""))
    elif cfg.user_text:
        raise ConfigError("data.source.user_text needs data.source.users, the file of its fields.")
    return check(Tables(events, items, users, notes), cfg.path, where)
