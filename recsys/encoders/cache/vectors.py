"""The vectors of a frozen encoder: computed once for a whole catalog, shared between runs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog
from recsys.encoders.cache import common
from recsys.encoders.cache.common import CacheReport
from recsys.encoders.encoder import Encoder
from recsys.encoders.pooling import Joined
from recsys.runtime.progress import track
from recsys.runtime.store import Store

_FORMAT = 1  # raise it when the files change, so that old folders are not read


class FrozenVectorCache:
    """Pooled vectors of all items, made by an encoder of which nothing trains.

    Args:
        values: (I, D) the vectors, fp32; `build` maps them from disk.
        report: What they cost and how exact they are.
    """

    def __init__(self, values: Tensor, report: CacheReport) -> None:
        self._values, self.report = values, report

    @staticmethod
    def compute_size_gb(encoder: Encoder, catalog: Catalog) -> float:
        """Size of the vectors of a whole catalog, in GB (10^9 bytes)."""
        return len(catalog) * encoder.vector_width * 4 / 1e9

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        catalog: Catalog,
        store: Store,
        *,
        device: torch.device | None = None,
        show: bool = False,
    ) -> FrozenVectorCache:
        """Computes the vectors, or finds those of an earlier run with the same encoder and texts.

        Args:
            encoder: The frozen encoder.
            catalog: The item texts.
            store: Where the vectors are kept.
            device: Where to compute; None where the encoder is.
            show: Whether to show how far it is.

        Raises:
            DataError: Kept vectors differ from what the model computes now.
        """
        began = time.perf_counter()

        def make_key() -> dict[str, object]:
            return {
                "format": _FORMAT,
                "weights": common.hash_weights(encoder, encoder.depth + 1),
                "pooling": type(encoder.pooling).__name__,
                **_make_pooling_key(encoder),
                **common.make_key_parts(encoder, catalog),
            }

        def write_folder(folder: Path, other: common.CacheDonor | None) -> None:
            out = np.empty((len(catalog), encoder.vector_width), dtype=np.float32)
            todo = common.list_missing(catalog, other)
            if other is not None:
                old = np.load(other.folder / "vectors.npy", mmap_mode="r")
                out[other.has] = old[other.rows[other.has]]
            with track("item vectors", len(todo), "texts", show) as task:
                for rows in torch.split(todo, common.BLOCK) if len(todo) else ():
                    vectors = encoder(catalog.gather_tokens(rows, there))
                    out[rows.numpy()] = vectors.float().cpu().numpy()
                    task.advance(len(rows))
            np.save(folder / "vectors.npy", out)

        with common.switch_to_eval(encoder, device) as there:
            made = common.find_or_build(store, "vectors", make_key, write_folder, catalog)
            values = common.read_memmap(made.folder / "vectors.npy")
            rows = common.sample_rows(catalog)
            now = encoder(catalog.gather_tokens(rows, there))
        errors = common.compute_relative_errors(values[rows], now)
        common.check_errors(errors, encoder, "fp32", "vectors", made.folder)
        report = common.make_report(
            "vectors", encoder.depth, "fp32", values, made, began, errors, float(errors.max())
        )
        return cls(values, report)

    def look_up(self, rows: Tensor) -> Tensor:
        """(U, D) vectors of catalog rows (U,), on the device of the rows."""
        if self._values.device != rows.device:
            self._values = self._values.to(rows.device)
        return self._values.index_select(0, rows)


def _make_pooling_key(encoder: Encoder) -> dict[str, object]:
    """What a vector depends on behind the layers, besides the kind of pooling; empty without any.

    A prompt is part of the catalog's texts, and only a pooling that leaves it out is told apart.
    """
    out: dict[str, object] = {}
    if len(encoder.dense):
        digest = hashlib.sha256(repr(encoder.dense).encode())
        for name, p in sorted(encoder.dense.named_parameters()):
            digest.update(name.encode())
            digest.update(p.detach().cpu().contiguous().numpy().tobytes())
        out["dense"] = digest.hexdigest()
    if isinstance(encoder.pooling, Joined):
        out["poolings"] = [type(part).__name__ for part in encoder.pooling.parts]
    if encoder.cut is not None:
        out["width"] = encoder.cut
    if encoder.skips[0]:
        out["skip"] = encoder.skips[0]
    return out
