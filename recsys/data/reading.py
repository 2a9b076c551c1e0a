"""Reading of files that all sources share: compression, marks, line ends, ids as text."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.errors import DataError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_UNIT = "\x1f"  # the ASCII unit separator, stands in for separators of two letters


def find(folder: Path, *names: str) -> Path:
    """The first of the names that the folder holds.

    Raises:
        DataError: It holds none.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds no {' or '.join(names)}; put the file there or mend the path.")


def content(path: Path, encoding: str = "utf-8-sig") -> str:
    """Text of a plain or .gz file without byte-order mark, lines ended by a single newline.

    Raises:
        DataError: The file is missing, damaged or in another encoding.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return raw.decode(encoding).replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or mend the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not {encoding} at byte {error.start}; convert it.") from error


def delimited(
    path: Path,
    separator: str,
    names: Sequence[str] | None = None,
    encoding: str = "utf-8-sig",
    quoted: bool = False,
) -> pl.DataFrame:
    """A table of text columns; empty places are null.

    Args:
        path: Plain or .gz file.
        separator: Between columns, one or more letters.
        names: Column names of a file without a header; None: the first line has them.
        encoding: Of the file.
        quoted: Whether double quotes enclose values (CSV); elsewhere they are part of the text.

    Raises:
        DataError: The file cannot be read, or a line has too many columns.
    """
    text = content(path, encoding)
    if len(separator) > 1:
        text, separator = text.replace(separator, _UNIT), _UNIT
    if not text.strip():
        raise DataError(f"{path} is empty; fetch it again.")
    try:
        return pl.read_csv(
            io.BytesIO(text.encode()),
            separator=separator,
            has_header=names is None,
            new_columns=list(names) if names is not None else None,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} is not a table ({reason}); check its columns.") from error


def table(path: Path) -> pl.DataFrame:
    """A .csv, .tsv, .jsonl or .parquet file, the first three also as .gz.

    CSV and TSV columns are text; the other two keep their types.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if kind in _SEPARATORS:
        return delimited(path, _SEPARATORS[kind], quoted=kind == ".csv")
    if kind not in (".jsonl", ".parquet"):
        raise DataError(f"{path} is no .csv, .tsv, .jsonl (.gz) or .parquet file; convert it.")
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        return pl.read_ndjson(io.BytesIO(content(path).encode()), infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{path} cannot be read ({reason}); check the file.") from error


def ids(column: pl.Series, where: str) -> pl.Series:
    """Ids as text, exactly as the file has them, without blanks around them.

    Raises:
        DataError: The column is not text or whole numbers: a float has lost the id already.
    """
    if column.dtype != pl.String and not column.dtype.is_integer():
        raise DataError(f"{where}: ids in column '{column.name}' are {column.dtype}; save as text.")
    return column.cast(pl.String).str.strip_chars()


def numbers(column: pl.Series, where: str) -> pl.Series:
    """A column as Float64.

    Raises:
        DataError: A value is missing or no number; the message names row (from 1) and value.
    """
    out = column.cast(pl.Float64, strict=False)
    if out.null_count():
        row = int(out.is_null().arg_true()[0])
        raise DataError(
            f"{where}: row {row + 1} of column '{column.name}' holds '{column[row]}', which is no "
            "number; mend or remove the row."
        )
    return out


def users_of(interactions: pl.DataFrame) -> pl.DataFrame:
    """A users table without texts, in order of first appearance."""
    names = interactions["user"].unique(maintain_order=True)
    return pl.DataFrame({"user": names, "text": pl.Series([""] * len(names), dtype=pl.String)})
