"""Makes a bundle of many items: python benchmarks/serve/enlarge.py BUNDLE TO [ITEMS].

Encoder, heads and people stay those of BUNDLE, a model of two towers, so that texts are encoded as
before. Items are made: titles of the words of its titles, and vectors around its own, of the same
width and length. What is recommended means nothing; what it costs does.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl

from recsys.runtime.files import open_atomic_folder
from recsys.trained.bundle import manifest
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.manifest import Manifest

_SPREAD = 0.5
"""Length of what is added to a unit vector, so that no two items are alike."""


def enlarge(source: Path, target: Path, count: int = 100_000, seed: int = 0) -> None:
    """Writes the bundle.

    Args:
        source: A bundle of two towers over texts, with users.
        target: The folder to make.
        count: How many items it has.
        seed: Of all that is drawn.
    """
    bundle = open_bundle(source)
    rng = np.random.default_rng(seed)
    with open_atomic_folder(target) as fresh:
        shutil.copytree(source, fresh, dirs_exist_ok=True)
        (fresh / manifest.MANIFEST).unlink()
        own = pl.read_parquet(source / manifest.ITEMS)
        _make_items(own["text"].to_list(), count, rng).write_parquet(fresh / manifest.ITEMS)
        _save(
            fresh / manifest.CATALOG, _make_vectors(np.load(source / manifest.CATALOG), count, rng)
        )
        counts = (1e5 / np.arange(1, count + 1) ** 0.8).astype(np.int64)
        for name in (manifest.COUNTS, manifest.TRAIN_COUNTS):
            _save(fresh / name, counts)
        history = fresh / manifest.HISTORY / "items.npy"
        had = np.load(history)
        _save(history, rng.permutation(count)[had % count].astype(had.dtype))
        described = Manifest.describe(fresh, f"{bundle.name} of {count} items", {})
        (fresh / manifest.MANIFEST).write_text(described.format(), encoding="utf-8")


def _make_items(titles: list[str], count: int, rng: np.random.Generator) -> pl.DataFrame:
    words = sorted({word for title in titles for word in title.split()})
    drawn = rng.integers(len(words), size=(count, 5)).tolist()
    return pl.DataFrame(
        {
            "item": [str(row) for row in range(count)],
            "text": [" ".join(words[each] for each in some) for some in drawn],
            "year": rng.integers(1950, 2025, size=count),
        }
    )


def _make_vectors(own: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, D) vectors around those of the bundle, each as long as the one it lies beside."""
    near = own[rng.integers(len(own), size=count)]
    length = np.linalg.norm(near, axis=1, keepdims=True)
    added = rng.standard_normal(near.shape, dtype=np.float32) * length
    out = near + added * np.float32(_SPREAD / near.shape[1] ** 0.5)
    out *= length / np.linalg.norm(out, axis=1, keepdims=True)
    return out.astype(own.dtype)


def _save(path: Path, values: np.ndarray) -> None:
    np.save(path, values, allow_pickle=False)


if __name__ == "__main__":
    enlarge(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
