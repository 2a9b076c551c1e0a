"""UCI Online Retail, I and II: the invoices of a real shop, as CSV.

Pages: UCI Machine Learning Repository, "Online Retail" (Chen, Sain and Guo 2012) and "Online Retail
II"; they give .xlsx files (no checksum is known): save the sheets as one CSV. An invoice is a
basket: several targets at one time, named by the column `basket`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from recsys.data import reading
from recsys.data.tables import Tables, check, parse_times
from recsys.data.text import fill
from recsys.errors import DataError

_WHAT = 'the CSV of the UCI page "Online Retail" or "Online Retail II"'
_NAMES = {
    "InvoiceNo": "basket",
    "Invoice": "basket",
    "StockCode": "item",
    "Description": "description",
    "Quantity": "quantity",
    "InvoiceDate": "time",
    "UnitPrice": "price",
    "Price": "price",
    "CustomerID": "user",
    "Customer ID": "user",
    "Country": "country",
}
_GOODS = r"^(\d{5}[A-Za-z]*|DCGS\w+)$"  # not postage, fees, vouchers, samples or bank charges


@dataclass
class Config:
    """Where the file lies, and which of its dirty rows stay."""

    default_split: ClassVar[Literal["leave_one_out", "time", "given"]] = "time"

    path: str = field(default="", metadata={"help": "The CSV file (.gz too), or its folder."})
    codes: Literal["goods", "all"] = field(
        default="goods",
        metadata={"help": "Stock codes: goods only, or all with postage, fees and vouchers."},
    )
    item_text: str = field(
        default="{description}", metadata={"help": "Template of an item's text over description."}
    )
    user_text: str = field(
        default="{country}", metadata={"help": "Template of a user's text over country."}
    )


def _file(path: str) -> Path:
    """The file that the user means."""
    if path and Path(path).is_file():
        return Path(path)
    folder = reading.folder(path, _WHAT)
    found = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])
    if len(found) != 1:
        raise DataError(f"{folder} holds {len(found)} CSV files; set data.source.path to one.")
    return found[0]


def _sold(lines: pl.DataFrame, codes: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The lines that are a customer's purchases, and how many were not, by reason."""
    steps = [
        ("without a customer", pl.col("user").is_not_null()),
        ("of cancelled invoices", ~pl.col("basket").str.to_uppercase().str.starts_with("C")),
        ("with a quantity of zero or less", pl.col("quantity") > 0),
    ]
    if codes == "goods":
        steps.append(("with a stock code that is no product", pl.col("item").str.contains(_GOODS)))
    notes = []
    for why, keep in steps:
        left = lines.filter(keep)
        notes.append(f"online_retail: {lines.height - left.height} lines {why}: left out.")
        lines = left
    return lines, tuple(notes)


def _moments(column: pl.Series, where: str) -> pl.Series:
    """Times as ISO text or, as spreadsheets write them, month/day/year hour:minute."""
    if column.str.contains("/").any():
        column = column.str.to_datetime("%m/%d/%Y %H:%M", strict=False).fill_null(
            column.str.to_datetime("%m/%d/%y %H:%M", strict=False)
        )
    return parse_times(column, where).alias("time")


def load(cfg: Config) -> Tables:
    """Reads the purchases; a product has the description of its first sale that has one.

    Raises:
        DataError: The file is missing, damaged, or lacks a column.
        ConfigError: A template names an unknown column.
    """
    path = _file(cfg.path)
    lines = reading.table(path, numeric=("Quantity", "UnitPrice", "Price"))
    lines = lines.rename({n: _NAMES[n] for n in lines.columns if n in _NAMES})
    missing = [name for name in dict.fromkeys(_NAMES.values()) if name not in lines.columns]
    if missing:
        raise DataError(f"{path} lacks the column of {missing[0]}; save the sheet with its header.")
    lines = lines.with_columns(
        pl.col("user").str.strip_chars().str.strip_suffix(".0").replace("", None),
        pl.col("item", "basket").str.strip_chars(),
        *(reading.numbers(lines[name], str(path)).alias(name) for name in ("quantity", "price")),
    )
    lines, notes = _sold(lines, cfg.codes)
    lines = lines.with_columns(_moments(lines["time"], str(path)))
    # Not the most frequent description: that would tell of sales to come.
    items = lines.group_by("item", maintain_order=True).agg(
        pl.col("description").drop_nulls().first()
    )
    items = items.with_columns(fill(items, cfg.item_text))
    users = lines.unique("user", keep="first", maintain_order=True).select("user", "country")
    users = users.with_columns(fill(users, cfg.user_text))
    events = lines.select("user", "item", "time", "basket", "quantity", "price")
    events, items, more = reading.described(events, items, "online_retail")
    users = users.filter(pl.col("user").is_in(events["user"].unique().to_list()))
    return check(Tables(events, items, users, (*notes, *more)), str(path))
