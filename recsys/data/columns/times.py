"""Times as they come: seconds, milliseconds, ISO dates; else an error or a note."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError

# A median of 1e11 is the year 5138 in seconds and 1973 in milliseconds; 1e14 ms is again year 5138.
_FIRST_MS = 1e11
_LAST_MS = 1e14
_YEARS = (1900, 2200)  # a time outside is a mistake
EVER = (1, 9999)  # of a bound, that may stand for always
_LIKELY = (1995, 2100)  # other times are likely in another unit
_EXCEL = (32_874, 73_050)  # 1990 to 2100 in days since the end of 1899
# Dates as digits: how, what a number is divided by to give year, month and day, and how many of
# them are no accident. As seconds, those of 8 digits are of 1970, of 10 digits years from 2030 on.
_DIGITS = (("YYYYMMDD", 1, 1), ("YYYYMMDDhh", 100, 20), ("YYYYMMDDhhmm", 10_000, 3))


def parse_times(column: pl.Series, where: str, years: tuple[int, int] = _YEARS) -> pl.Series:
    """Int64 milliseconds since 1970 UTC, from numbers or ISO 8601 text.

    Numbers are seconds or milliseconds, whichever fits the median. Text without an offset is UTC.

    Args:
        column: Numbers, text, dates or datetimes.
        where: The file to name in messages.
        years: First and last that a time may lie in.

    Raises:
        DataError: A value cannot be read, or lies in no such year; or all are surely in another
            unit. The message names a row (from 1) and its value.
    """
    if column.dtype == pl.Boolean:
        raise DataError(f"{where}: column '{column.name}' is true or false, which is no time.")
    if column.dtype.is_temporal():
        if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
            moments = column.cast(pl.Datetime("ms")).dt.epoch("ms")
            return _check_years(_check_no_gaps(moments, column, where), column, where, years)
        raise DataError(f"{where}: column '{column.name}' is {column.dtype}, which is not a time.")
    numbers = column.cast(pl.Float64, strict=False)
    head = numbers.drop_nulls()
    if column.dtype == pl.String and numbers.null_count() > len(column) / 2:
        values = [_parse_iso(value) for value in column.to_list()]
        moments = _check_no_gaps(pl.Series(column.name, values, dtype=pl.Int64), column, where)
        return _check_years(moments, column, where, years)
    numbers = _check_no_gaps(numbers, column, where)
    finite = numbers.is_finite()
    if not finite.all():
        return _check_no_gaps(numbers.set(~finite, None), column, where)
    _check_units(numbers, column, where, years)
    middle = abs(float(np.median(head.to_numpy()))) if len(head) else 0.0
    if middle >= _LAST_MS:
        raise DataError(
            f"{where}: column '{column.name}' (row 1: '{column[0]}') is neither in seconds nor in "
            "milliseconds since 1970; convert it to one of them."
        )
    scale = 1.0 if middle >= _FIRST_MS else 1000.0
    return _check_years((numbers * scale).round(), column, where, years)


def _check_units(numbers: pl.Series, raw: pl.Series, where: str, years: tuple[int, int]) -> None:
    """Raises an error for numbers that are surely neither seconds nor milliseconds since 1970."""
    if (numbers < 0).any() and years != EVER:
        row = _find_first(numbers < 0)
        raise DataError(
            f"{where}: row {row + 1} of column '{raw.name}' holds '{raw[row]}', a moment before "
            "1970 when read as seconds; mend or remove the row, or write dates as 1969-12-31."
        )
    told = f"{where}: column '{raw.name}' (row 1: '{raw[0]}')" if len(raw) else where
    if len(raw) and numbers.is_between(*_EXCEL).all():
        raise DataError(
            f"{told} holds days as Excel counts them, which as seconds are of 1970-01-01; save "
            "dates as 2020-09-13, or seconds: (days - 25569) * 86400."
        )
    values = numbers.to_numpy()
    for shape, below, fewest in _DIGITS:
        if len(values) >= fewest and _has_date_digits(values, below):
            raise DataError(
                f"{told} holds dates as {shape}, which are no seconds since 1970; write them as "
                f"2020-09-13{'T08:30' if below > 1 else ''}."
            )


def _has_date_digits(values: NDArray[np.float64], below: int) -> bool:
    """Whether all numbers are dates written as digits, with an hour and minutes at their end."""
    days = values // below
    if not ((values == np.round(values)) & (days >= 19_000_101) & (days <= 22_001_231)).all():
        return False
    month, day, rest = days // 100 % 100, days % 100, values % below
    clock = (rest < 24) if below == 100 else (rest // 100 < 24) & (rest % 100 < 60)
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & clock).all())


def describe_unlikely_times(first: int, last: int) -> list[str]:
    """Sentences on times that no shop or site has had.

    Args:
        first: The first moment, ms since 1970 UTC.
        last: The last one.
    """
    out = []
    early, late = (int(np.datetime64(f"{year}-01-01", "ms").astype(np.int64)) for year in _LIKELY)
    for odd, word, moment, than, year in (
        (first < early, "begin", first, "before", _LIKELY[0]),
        (last >= late, "end", last, "after", _LIKELY[1]),
    ):
        if odd:
            out.append(
                f"times {word} on {format_day(moment)}, {than} {year}: are some of them missing, "
                "or in "
                "another unit?"
            )
    return out


def format_day(moment: int) -> str:
    """The day of a moment (ms since 1970 UTC), also one that no calendar of Python reaches."""
    return str(np.datetime64(moment, "ms").astype("datetime64[D]"))


def _find_first(mask: pl.Series) -> int:
    return int(mask.fill_null(False).arg_true()[0])


def _check_years(
    moments: pl.Series, raw: pl.Series, where: str, years: tuple[int, int]
) -> pl.Series:
    """Milliseconds as Int64, if they lie in the years."""
    first, last = (datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000 for year in years)
    odd = (moments < first) | (moments > last + 366 * 86_400_000)
    if odd.any():
        row = _find_first(odd)
        raise DataError(
            f"{where}: row {row + 1} of column '{raw.name}' holds '{raw[row]}', which lies outside "
            f"the years {years[0]} to {years[1]}; mend or remove the row, and give all times in "
            "one unit."
        )
    return moments.cast(pl.Int64)


def _parse_iso(value: str | None) -> int | None:
    """Milliseconds of an ISO text, None where it is none."""
    try:
        moment = datetime.fromisoformat((value or "").strip())
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _check_no_gaps(parsed: pl.Series, raw: pl.Series, where: str) -> pl.Series:
    gaps = parsed.is_null()
    if gaps.any():
        row = _find_first(gaps)
        held = (
            "is empty, or its line is short,"
            if raw[row] is None
            else f"holds '{raw[row]}', which is no time"
        )
        raise DataError(
            f"{where}: row {row + 1} of column '{raw.name}' {held}; give unix seconds, "
            "milliseconds or an ISO date."
        )
    return parsed
