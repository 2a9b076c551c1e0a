"""UCI Online Retail, I and II: the invoices of a real shop, as .xlsx or CSV.

Page: https://archive.ics.uci.edu/dataset/352/online+retail (Chen, Sain and Guo 2012), which gives
an .xlsx file, as that of Online Retail II does (no checksum is known). All its sheets are read,
with fastexcel; without it, save the sheets as one CSV. An invoice is a basket: several targets at
one time, named by the column `basket`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import polars as pl

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.columns.times import parse_times
from recsys.data.readers import tabular
from recsys.data.readers.templates import fill_template
from recsys.data.tables import Tables, check_tables
from recsys.errors import DataError

_WHAT = (
    "the .xlsx file of https://archive.ics.uci.edu/dataset/352/online+retail (or a CSV made of it)"
)
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
_FILES = (".csv", ".csv.gz", ".xlsx")
_GOODS = r"^(\d{5}[A-Za-z]*|DCGS\w+)$"  # not postage, fees, vouchers, samples or bank charges


@dataclass
class Config(SourceConfig):
    """Where the file lies, and which of its dirty rows stay."""

    default_split: ClassVar[SplitMethod] = "time"

    path: str = option("", "The .xlsx or .csv (.gz) file, or its folder.")
    codes: Literal["goods", "all"] = option(
        "goods", "Stock codes: goods only, or all with postage, fees and vouchers."
    )
    item_text: str = option("{description}", "Template of an item's text over description.")
    user_text: str = option("{country}", "Template of a user's text over country; empty: none.")


def _find_file(path: str) -> Path:
    """The file that the user means."""
    if path and Path(path).is_file():
        return Path(path)
    folder = tabular.check_folder(path, _WHAT)
    found = sorted(path for kind in _FILES for path in folder.glob(f"*{kind}"))
    if len(found) != 1:
        raise DataError(
            f"{folder} holds {len(found)} CSV or .xlsx files; set data.source.path to one."
        )
    return found[0]


def _read_lines(path: Path) -> pl.DataFrame:
    """All rows as text, the numbers of a CSV apart.

    Raises:
        DataError: The file is damaged, or nothing is installed that reads .xlsx.
    """
    if path.suffix.lower() != ".xlsx":
        return tabular.read_table(path, numeric=("Quantity", "UnitPrice", "Price"), latin=True)
    try:
        # Without types, as the numbers of cancelled invoices begin with a letter.
        sheets = pl.read_excel(path, sheet_id=0, infer_schema_length=0)
        return pl.concat(sheets.values())
    except ImportError as error:
        raise DataError(
            f"{path} is a spreadsheet, and fastexcel, which reads it, is not installed; "
            "pip install fastexcel, or save its sheets as one CSV file."
        ) from error
    except Exception as error:  # of any kind: the reader is another project's
        raise DataError(f"{path} cannot be read ({error}); save its sheets as one CSV.") from error


def _select_purchases(lines: pl.DataFrame, codes: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
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


def _parse_moments(lines: pl.DataFrame, where: str) -> tuple[pl.Series, tuple[str, ...]]:
    """Times as ISO text or, as spreadsheets write them, with slashes; null where there is none.

    Which number of a date is the day shows in the invoices: their numbers rise with time.

    Args:
        lines: All lines, with `basket` and `time`.
        where: The file.

    Returns:
        Milliseconds, and how the dates were read where that is a question.
    """
    raw = lines["time"]
    if not raw.str.contains("/").any():
        return raw.str.strip_chars().str.to_datetime(strict=False, time_unit="ms"), ()
    read = {order: _parse_slashed(raw, order) for order in ("%m/%d", "%d/%m")}
    none = {order: moments.null_count() for order, moments in read.items()}
    number = lines["basket"].str.extract(r"(\d+)").cast(pl.Int64, strict=False)
    rank = number.arg_sort()
    falls = {
        order: int((moments.gather(rank).diff().dt.total_milliseconds() < 0).sum())
        for order, moments in read.items()
    }
    order = min(read, key=lambda name: (none[name], falls[name]))
    said = {"%m/%d": "month/day/year", "%d/%m": "day/month/year"}[order]
    why = (
        "the only order that fits all"
        if len(set(none.values())) > 1
        else (
            "as the numbers of invoices rise with time so"
            if len(set(falls.values())) > 1
            else "as no date and no number of an invoice tells the order"
        )
    )
    return read[order], (f"online_retail: the dates of {where} are read as {said}, {why}.",)


def _parse_slashed(raw: pl.Series, order: str) -> pl.Series:
    """Dates with slashes as moments, with years of two or four digits, with or without seconds."""
    text = raw.str.strip_chars()
    out = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="ms")
    for year, clock in itertools.product(("%Y", "%y"), ("%H:%M", "%H:%M:%S")):
        digits = 4 if year == "%Y" else 2
        fits = text.str.contains(rf"/\d{{{digits}}} ")
        moments = text.str.to_datetime(f"{order}/{year} {clock}", strict=False, time_unit="ms")
        out = out.fill_null(moments.set(~fits, None))
    return out


def load(cfg: Config) -> Tables:
    """Reads the purchases; a product has the description of its first sale that has one.

    Raises:
        DataError: The file is missing, damaged, or lacks a column.
        ConfigError: A template names an unknown column.
    """
    path = _find_file(cfg.path)
    lines = _read_lines(path)
    lines = lines.rename({n: _NAMES[n] for n in lines.columns if n in _NAMES})
    missing = [name for name in dict.fromkeys(_NAMES.values()) if name not in lines.columns]
    if missing:
        raise DataError(f"{path} lacks the column of {missing[0]}; save the sheet with its header.")
    lines = lines.with_columns(
        pl.col("user").str.strip_chars().str.strip_suffix(".0").replace("", None),
        pl.col("item", "basket").str.strip_chars(),
        *(
            tabular.parse_numbers(lines[name], str(path)).alias(name)
            for name in ("quantity", "price")
        ),
    ).with_row_index("row", offset=1)
    moments, how = _parse_moments(lines, str(path))
    # Only a line that counts must have a time.
    lines, notes = _select_purchases(lines.with_columns(moment=moments), cfg.codes)
    bad = lines.filter(pl.col("moment").is_null())
    if bad.height:
        raise DataError(
            f"{path}: row {bad['row'][0]} has the date '{bad['time'][0]}', which cannot be read; "
            "write dates as 2011-12-09 12:50:00, or mend the row."
        )
    lines = lines.with_columns(parse_times(lines["moment"], str(path)).alias("time"))
    # Not the most frequent description: that would tell of sales to come.
    items = lines.group_by("item", maintain_order=True).agg(
        pl.col("description").drop_nulls().first()
    )
    items = items.with_columns(fill_template(items, cfg.item_text))
    users = lines.unique("user", keep="first", maintain_order=True).select("user", "country")
    users = users.with_columns(fill_template(users, cfg.user_text))
    events = lines.select("user", "item", "time", "basket", "quantity", "price")
    events, items, more = tabular.drop_undescribed(events, items, "online_retail", path)
    users = users.filter(pl.col("user").is_in(events["user"].unique().to_list()))
    return check_tables(Tables(events, items, users, (*how, *notes, *more)), str(path))
