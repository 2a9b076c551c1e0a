"""Item vectors with their ids: for vector databases, and for everything that reads NumPy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl

from recsys.trained.exports.opened import OpenedRun, open_for_export
from recsys.trained.exports.source import ExportSource

ARRAY, TABLE, ABOUT = "vectors.npy", "vectors.parquet", "vectors.json"


def write_vectors(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder with an array, a table of ids, titles and vectors, and what they are.

    Args:
        run: The run.
        folder: An empty folder.

    Returns:
        Sentences on what the folder holds.
    """
    opened = open_for_export(run)
    np.save(folder / ARRAY, opened.vectors)
    frame = make_item_table(opened)
    width = opened.vectors.shape[1]
    column = pl.Series("vector", opened.vectors, dtype=pl.Array(pl.Float32, width))
    frame.with_columns(column).write_parquet(folder / TABLE)
    count = len(frame)
    about = describe_vectors(opened) | {"sha256": hash_files(folder, (ARRAY, TABLE))}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return [
        f"{count:,} vectors of width {width} in {ARRAY}, with ids and titles in {TABLE}",
        *opened.list_remarks(),
    ]


def make_item_table(opened: OpenedRun) -> pl.DataFrame:
    """row, item and title of each item, and popularity where the score adds it."""
    frame = pl.DataFrame(
        {
            "row": pl.Series(range(len(opened.vectors)), dtype=pl.Int64),
            "item": opened.ids,
            "title": pl.Series(opened.texts, dtype=pl.String),
        }
    )
    if opened.score.added is None:
        return frame
    return frame.with_columns(pl.Series("popularity", opened.score.added.float().cpu().numpy()))


def describe_vectors(opened: OpenedRun) -> dict[str, object]:
    """What vectors are and how a score is made of them, for a file."""
    added = "" if opened.score.added is None else " + popularity of the item"
    return {
        "run": opened.run.folder.name,
        "data_fingerprint": opened.made.fingerprint,
        "items": len(opened.vectors),
        "width": int(opened.vectors.shape[1]),
        "unit_length": opened.score.unit,
        "scale": opened.score.scale,
        "score": f"scale * dot(query, item){added}",
        "score_is_complete": opened.score.complete,
    }


def hash_files(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of files by name."""
    sums = {}
    for name in names:
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
