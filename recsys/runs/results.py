"""What a run leaves behind: a folder of files, written aside and then renamed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from recsys.data.tables import Tables
from recsys.errors import DataError
from recsys.runs.result_file import encode_result
from recsys.runtime.files import CASES, CATALOG, REPEATED_CASES, RESULT, write_atomic


def gather_rows(rows: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The rows of all ranks; every rank must call it. In one process it is the identity."""
    if not torch.distributed.is_initialized():
        return rows
    parts: list[list[dict[str, Tensor]]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def make_cases_frame(rows: Sequence[Mapping[str, Tensor]], tables: Tables) -> pl.DataFrame:
    """One row a case, with the user's own ids: every k and slice can be recomputed from it."""
    if not rows:
        raise DataError("the test part has no case; choose another split.")
    frame = pl.DataFrame({name: torch.cat([row[name] for row in rows]).numpy() for name in rows[0]})
    frame = frame.sort("case")
    users, items = tables.users["user"], tables.items["item"]
    return frame.with_columns(
        user=users[frame["user"].to_list()], target=items[frame["target"].to_list()]
    )


def read_catalog(folder: Path) -> pl.DataFrame | None:
    """What `write_result` wrote of a run's catalog; None for a run of an older version.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / CATALOG
    try:
        return pl.read_parquet(path) if path.is_file() else None
    except (pl.exceptions.PolarsError, OSError):
        raise DataError(f"{path} is damaged; run fit again.") from None


def write_result(
    folder: Path,
    result: Mapping[str, object],
    cases: pl.DataFrame | None,
    catalog: pl.DataFrame | None = None,
    repeated: pl.DataFrame | None = None,
) -> None:
    """Writes the tables, then `result.json`, whose presence says that the run is complete.

    Args:
        folder: Of the run.
        result: What `result.json` is to hold.
        cases: A row a test case; None where nothing was tested.
        catalog: A row an item, as `recsys.data.revision.describe_catalog` makes it; None where
            nothing is recommended.
        repeated: As `cases`, of those that are counted apart; None where none are.

    Raises:
        DataError: The disk is full; each file is whole or absent.
    """
    for name, table in ((CASES, cases), (CATALOG, catalog), (REPEATED_CASES, repeated)):
        if table is not None:
            buffer = io.BytesIO()
            table.write_parquet(buffer)
            write_atomic(folder / name, buffer.getvalue())
    write_atomic(folder / RESULT, encode_result(result))
