"""Titles and ordered histories without times: items.tsv and users.tsv, plain or .gz."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.readers import tabular
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_HEADERS = {"id", "item", "item_id", "itemid", "user", "user_id", "userid"}


@dataclass
class Config(SourceConfig):
    """Where the two files lie."""

    default_split: ClassVar[SplitMethod] = "leave_one_out"

    path: str = option(
        "",
        "Folder with items.tsv (id, tab, title) and users.tsv (user, tab, item ids "
        "separated by blanks, oldest first); .gz too; a header line is optional.",
    )


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """The two columns of a file, without its header and blank lines."""
    out = []
    for number, line in enumerate(tabular.read_file_text(path).split("\n"), 1):
        if not line.strip():
            continue
        left, tab, right = line.partition("\t")
        if not tab:
            raise DataError(f"{path}: line {number} has no tab between its two columns; add it.")
        if number == 1 and left.strip().lower() in _HEADERS:
            continue
        out.append((left.strip(), right.strip()))
    return out


def _unquote(title: str) -> str:
    """A title as it was before a CSV writer put it in quotes and doubled those inside."""
    inner = title[1:-1].replace('""', "\0")
    if len(title) < 2 or title[0] != '"' or title[-1] != '"' or '"' in inner:
        return title
    return inner.replace("\0", '"')


def load(cfg: Config) -> Tables:
    """Reads both files; the place in a user's line is the order, there are no times.

    Raises:
        DataError: A file is missing or malformed, or a history names an unknown item.
    """
    if not cfg.path:
        raise DataError(
            "data.source.path is empty; set it to the folder of items.tsv and users.tsv."
        )
    folder = Path(cfg.path)
    items = _read_pairs(tabular.find_file(folder, "items.tsv", "items.tsv.gz"))
    users = _read_pairs(tabular.find_file(folder, "users.tsv", "users.tsv.gz"))
    events = [(user, item) for user, history in users for item in history.split()]
    text = pl.String
    tables = Tables(
        interactions=pl.DataFrame(events, schema={"user": text, "item": text}, orient="row"),
        items=pl.DataFrame(
            [(item, " ".join(html.unescape(_unquote(title)).split())) for item, title in items],
            schema={"item": text, "text": text},
            orient="row",
        ),
        users=pl.DataFrame(
            [(user, "") for user, _ in users], schema={"user": text, "text": text}, orient="row"
        ),
    )
    return check_tables(tables, str(folder))
