"""Canonical tables as a folder: Parquet, and which split and keys they were described with.

The tables are what is left after the filters; all that a run decides by itself (the split, what is
liked, whose reviews are read) is not done to them, but written beside them.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import polars as pl

from recsys.config.groups import AugmentOptions
from recsys.config.schema import DataOptions
from recsys.data.splits.methods import Method
from recsys.data.tables import Tables
from recsys.errors import ConfigError, DataError
from recsys.runtime.files import PREPARED, open_atomic_folder

FILE = PREPARED
_METHODS = typing.get_args(Method)
# What has been done to the tables already: doing it again is no use, or (event_types) wrong.
_DONE = (
    *("source", "split", "max_users", "max_items", "event_types", "since", "until"),
    *("min_rating", "repeats", "min_text", "k_core"),
)


@dataclass(frozen=True)
class ExportSettings:
    """What tables were described with.

    Attributes:
        split: The method, or None where there was none.
        keys: Further keys of `data`, by name, as they are typed.
    """

    split: Method | None
    keys: dict[str, str]

    def format_options(self) -> list[str]:
        """The keys as words of a command line."""
        return [f"data.{key}={value}" for key, value in self.keys.items()]


def make_export_settings(data: DataOptions, method: Method | None) -> ExportSettings:
    """What tables are to be used with as they were described, beside their folder.

    Args:
        data: The options; those that filter are left out, as the tables are filtered.
        method: The split that was made.
    """
    return ExportSettings(method, dict(_iterate_changed(data, "")))


def _iterate_changed(
    options: DataOptions | AugmentOptions, prefix: str
) -> Iterator[tuple[str, str]]:
    """Keys that differ from their defaults, with their values as words."""
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, AugmentOptions):
            yield from _iterate_changed(value, f"{field.name}.")
        elif field.name not in _DONE and value != field.default:
            yield f"{prefix}{field.name}", str(value).removesuffix(".0")


def check_free(out: Path) -> None:
    """Raises an error for a folder that could not be written, before anything is read.

    Raises:
        ConfigError: It is there already, lies below a file, or its parent takes no files.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"output={out} exists already; remove it or choose another folder.")
    above = out.parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise ConfigError(f"output={out} lies below {above}, which is a file; choose a folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"output={out}: {above} takes no files; choose a folder of your own.")


def write_tables(out: Path, tables: Tables, used: ExportSettings) -> None:
    """Writes a folder that is whole or absent.

    Raises:
        DataError: The disk is full, the folder is there by now, or it cannot be written.
    """
    try:
        with open_atomic_folder(out) as folder:
            tables.interactions.write_parquet(folder / "interactions.parquet")
            tables.items.write_parquet(folder / "items.parquet")
            tables.users.write_parquet(folder / "users.parquet")
            text = json.dumps({"split": used.split, "keys": used.keys}, indent=1)
            (folder / FILE).write_text(text + "\n", encoding="utf-8")
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{out} cannot be written ({reason}); choose another folder.") from error


def read_settings(folder: Path) -> ExportSettings:
    """What the tables of a folder were described with.

    A folder without a word of it has the split of its column `split`, where there is one.

    Raises:
        DataError: The file is damaged.
    """
    path, events = folder / FILE, folder / "interactions.parquet"
    if path.is_file():
        try:
            found = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
            keys = {str(key): str(value) for key, value in found["keys"].items()}
            split = found["split"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({error}); write the folder again.") from error
        if split is not None and split not in _METHODS:
            raise DataError(f"{path} names the split '{split}'; use {', '.join(_METHODS)}.")
        return ExportSettings(split, keys)
    given = events.is_file() and "split" in pl.read_parquet_schema(events)
    return ExportSettings("given" if given else None, {})
