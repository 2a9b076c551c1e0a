"""Reads files of users piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from recsys.data.readers.tabular import read_table
from recsys.errors import DataError
from recsys.runtime.files import translate_write_errors
from recsys.trained.bulk.output import raise_system_errors

USER, HISTORY = "user", "history"


def open_rows(path: Path, copy: Path) -> pl.LazyFrame:
    """A table by rows, without having it in memory: Parquet is, and other files are copied to it.

    Raises:
        DataError: It cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        try:
            rows = pl.scan_parquet(path)
            names = rows.collect_schema().names()
        except (pl.exceptions.PolarsError, OSError):
            rows = read_table(path).lazy()  # which names the reason
            names = rows.collect_schema().names()
        return rows.select([name for name in (USER, HISTORY) if name in names] or names)
    try:
        text = _scan_text(path)
        names = text.collect_schema().names()
        text.select([n for n in (USER, HISTORY) if n in names] or names).sink_parquet(copy)
    except (pl.exceptions.PolarsError, OSError):
        frame = read_table(path)  # or it names the reason
        with translate_write_errors(copy), raise_system_errors():
            frame.write_parquet(copy)
    return pl.scan_parquet(copy)


def _scan_text(path: Path) -> pl.LazyFrame:
    """A plain text file as a table that is read piece by piece.

    Raises:
        OSError: It is of another kind.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    if kind not in (".csv", ".tsv"):
        raise OSError
    comma = kind == ".csv"
    return pl.scan_csv(
        path,
        separator="," if comma else "\t",
        quote_char='"' if comma else None,
        infer_schema=False,
    )


def compute_file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"users={path} cannot be read ({error.strerror}); give a file, or users=all."
        ) from None
