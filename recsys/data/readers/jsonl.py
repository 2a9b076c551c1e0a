"""JSON lines of any size, read piece by piece; only the fields that were asked for are kept."""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import polars as pl

from recsys.data.readers.templates import join_values
from recsys.errors import DataError, describe_file_error

_HALF = b"\\ud"  # how JSON and Python write one half of a surrogate pair
_DEEPEST = 100  # lists and objects in each other
_PIECE = 100_000  # lines that are Python objects at one time


@dataclass(frozen=True)
class ColumnSpec:
    """Where a column comes from.

    Attributes:
        kind: "text", in which lists and their parts are joined by commas, or "number" (Float64).
        names: Keys of the record; the first that it has counts.
    """

    kind: Literal["text", "number"]
    names: tuple[str, ...]


def make_text_column(*names: str) -> ColumnSpec:
    """A column of text."""
    return ColumnSpec("text", names)


def make_number_column(*names: str) -> ColumnSpec:
    """A column of numbers."""
    return ColumnSpec("number", names)


def read_records(path: Path, columns: Mapping[str, ColumnSpec]) -> pl.DataFrame:
    """A table from a plain or .gz file with one object a line.

    A line may also be a Python literal, as in the older files of the Amazon and Steam sets.

    Args:
        path: The file.
        columns: Our column names and where they come from; a record that lacks all keys of one
            has a null there.

    Raises:
        DataError: The file is missing, damaged or empty, a line holds no object, or something that
            is no number where one is due.
    """
    kinds = {
        name: pl.Float64 if key.kind == "number" else pl.String for name, key in columns.items()
    }
    pieces: list[pl.DataFrame] = []
    rows: dict[str, list[str | float | None]] = {name: [] for name in columns}
    count = 0
    for place, record in _read_numbered(path):
        count += 1
        for name, key in columns.items():
            value = next((record[n] for n in key.names if n in record), None)
            if key.kind == "text":
                rows[name].append(join_values(value))
                continue
            found = _parse_number(value)
            if found is None and value not in (None, ""):
                raise DataError(
                    f"{path}: line {place} has the {name} '{str(value)[:40]}', which is no number; "
                    "mend or remove the line."
                )
            rows[name].append(found)
        if count % _PIECE == 0:
            pieces.append(pl.DataFrame(rows, schema=kinds))
            rows = {name: [] for name in columns}
    if not count:
        raise DataError(f"{path} is empty; fetch it again.")
    return pl.concat([*pieces, pl.DataFrame(rows, schema=kinds)], rechunk=True)


def read_objects(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a plain or .gz file, one a line; blank lines do not count.

    Raises:
        DataError: The file is missing or damaged, or a line holds no object.
    """
    for _, found in _read_numbered(path):
        yield found


def _read_numbered(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Number of the line, from 1, and its object."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for place, line in enumerate(file, 1):
                if place == 1 and b"\0" in line:
                    raise DataError(
                        f"{path} holds NUL characters, as UTF-16 does; save it as UTF-8."
                    )
                if line.strip():
                    yield place, _parse_object(line, place, path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the file there or mend the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(describe_unreadable(path, error)) from error


def describe_unreadable(path: Path, error: Exception) -> str:
    """The error message for a file that exists: the system's reason, else that it is damaged."""
    refused = describe_file_error(error, path) if isinstance(error, OSError) else None
    return refused or f"{path} cannot be read ({error}); fetch it again."


def _parse_object(line: bytes, place: int, path: Path) -> dict[str, object]:
    deep = line.count(b"[") + line.count(b"{") + line.count(b"(") > _DEEPEST
    try:
        found = json.loads(line)
        if deep:
            _check_depth(found)
    except RecursionError:
        found = None
    except ValueError:
        try:
            found = ast.literal_eval(line.decode("utf-8-sig").strip())
            if deep:
                _check_depth(found)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: line {place} holds no JSON object that can be read; mend or remove the line."
        )
    return cast(dict[str, object], repair_surrogates(found)) if _HALF in line.lower() else found


def _check_depth(value: object, left: int = _DEEPEST) -> None:
    """Raises a RecursionError for lists and objects that no data set has so deep."""
    if not left:
        raise RecursionError
    if isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, list | tuple | dict):
                _check_depth(each, left - 1)


def repair_surrogates(value: object) -> object:
    """A value of JSON whose texts can be encoded: half a surrogate pair becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [repair_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {
            str(repair_surrogates(str(name))): repair_surrogates(each)
            for name, each in value.items()
        }
    return value


def _parse_number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
