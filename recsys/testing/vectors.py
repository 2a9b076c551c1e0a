"""A bundle of made vectors and users, as large as one likes, for what measures time and memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config.compose import compose, format_config
from recsys.runtime.files import CONFIG
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import Manifest

EVENTS = 20
"""What each user had."""


def write_vector_bundle(
    folder: Path,
    users: int,
    items: int,
    width: int,
    seed: int = 0,
    columns: Mapping[str, pl.Series] | None = None,
) -> Path:
    """Writes a bundle of two towers with a decayed history, but for their encoder.

    It answers users and histories; the vectors are random ones of unit length.

    Args:
        folder: The folder to make.
        users: How many users it has.
        items: How many items.
        width: Of a vector.
        seed: Of all that is random.
        columns: Further columns of the items, (I,) each.

    Returns:
        The folder.
    """
    rng = np.random.default_rng(seed)
    for name in (manifest.HISTORY, manifest.PLAIN_ARRAYS):
        (folder / name).mkdir(parents=True)
    vectors = rng.standard_normal((items, width), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    had = rng.integers(0, items, users * EVENTS).astype(np.int32)
    arrays: dict[str, NDArray[Any]] = {
        manifest.CATALOG: vectors,
        manifest.COUNTS: np.bincount(had, minlength=items),
        f"{manifest.HISTORY}/offsets.npy": np.arange(users + 1) * EVENTS,
        f"{manifest.HISTORY}/items.npy": had,
        f"{manifest.HISTORY}/labels.npy": np.ones(len(had), dtype=np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / name, array)
    ids = pl.Series("item", np.arange(items)).cast(pl.String)
    table = pl.DataFrame([ids, ("title " + ids).alias("text")])
    table.with_columns(**(columns or {})).write_parquet(folder / manifest.ITEMS)
    people = ("u" + pl.Series("user", np.arange(users)).cast(pl.String)).alias("user")
    pl.DataFrame({"user": people, "text": [""] * users}).write_parquet(folder / manifest.USERS)
    numbers = {"width": width, "rate": 0.1, "scale": 20.0, "unit": 1.0, "prior": 0.0}
    texts = {
        manifest.PLAIN: json.dumps({"kind": "vectors", "numbers": numbers}),
        manifest.QUERIES: json.dumps({"max_history": EVENTS, "context": {}, "clock": []}),
        CONFIG: format_config(compose(["architecture=two_tower", "data.source=movielens"])),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    about = Manifest.describe(folder, "made vectors", {})
    (folder / manifest.MANIFEST).write_text(about.format(), encoding="utf-8")
    return folder
