"""What the kept states and the kept vectors of a catalog have in common."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog
from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import compute_parameter_depths
from recsys.errors import DataError
from recsys.runtime.excluded_time import Elapsed
from recsys.runtime.store import Store, read_build_time

Dtype = Literal["fp32", "fp16"]

BLOCK = 1024
"""Texts that are tokenised and planned at a time while a catalog is encoded."""

TOLERANCE: dict[Dtype, float] = {"fp32": 1e-3, "fp16": 2e-3}
"""Largest relative error of kept numbers; half precision rounds by up to 2**-11 = 4.9e-4."""

COARSE = 0.1
"""The same where an encoder computes in bf16, which rounds each text otherwise in another batch."""

_SAMPLE = 16  # texts that are computed again at each start
_TIME = "build.json"


@dataclass(frozen=True)
class CacheReport:
    """What is kept, what it cost, and how exact it is on a sample that is computed again.

    Attributes:
        what: "states" below the lowest trained layer, or "vectors" of a frozen encoder.
        depth: How many layers are not computed any more.
        dtype: In which precision it is kept.
        gb: Size in GB (10^9 bytes).
        built: Whether this process built it, or found it.
        encoded: Texts that this start encoded for it; the others were kept for another catalog.
        seconds: Time of this start: weights hashed, built or found, sample compared.
        build_seconds: Time that building took, whenever and by whichever run.
        max_error: Largest relative error of a kept row (a token's state or a text's vector): the
            Euclidean norm of the difference over that of the row computed now.
        mean_error: Its mean.
        vector_error: Largest relative error of a text's vector that is made from what is kept,
            against the whole model in fp32.
        taken: Texts that were taken from what was kept for another catalog.
    """

    what: Literal["states", "vectors"]
    depth: int
    dtype: Dtype
    gb: float
    built: bool
    encoded: int
    seconds: float
    build_seconds: float
    max_error: float
    mean_error: float
    vector_error: float
    taken: int = 0

    def describe(self) -> str:
        """The report as one line for a user."""
        how = f"built in {self.build_seconds:.0f} s" if self.built else "found"
        if self.built and self.taken:
            texts = "text" if self.encoded == 1 else "texts"
            how = f"{self.encoded} {texts} encoded, {self.taken} taken from another catalog"
        return (
            f"kept {self.what} after {self.depth} layers: {self.gb:.2f} GB in {self.dtype}, {how}; "
            f"relative error at most {self.max_error:.1e} (mean {self.mean_error:.1e}), "
            f"of item vectors at most {self.vector_error:.1e}"
        )


@dataclass
class CacheEntry:
    """A folder of the store, and what it took to get it.

    Attributes:
        folder: The folder.
        built: Whether this process built it.
        seconds: Time that building took, whenever that was.
        encoded: Texts that this process encoded.
        taken: Texts that it took from another folder.
    """

    folder: Path
    built: bool = False
    seconds: float = 0.0
    encoded: int = 0
    taken: int = 0


@dataclass(frozen=True)
class CacheDonor:
    """What another catalog's folder holds of this catalog's texts.

    Attributes:
        folder: The folder.
        rows: (I,) row of each text there, -1 for what it lacks.
        count: How many texts it holds in all.
    """

    folder: Path
    rows: npt.NDArray[np.int64]
    count: int

    @property
    def has(self) -> npt.NDArray[np.int64]:
        """Catalog rows of the texts that it holds."""
        return np.flatnonzero(self.rows >= 0)


_DONORS = 8  # folders that are looked into: each costs a pass over its tokens


def find_donor(
    store: Store, kind: str, parts: Mapping[str, object], catalog: Catalog
) -> CacheDonor | None:
    """The folder of another catalog, by the same encoder, that has most of this one's texts.

    Args:
        store: The store.
        kind: The sort of folder.
        parts: Its key.
        catalog: The texts.
    """
    best: CacheDonor | None = None
    own = list(catalog.iter_contents())
    for folder, name in store.find_similar(kind, parts, "catalog")[:_DONORS]:
        try:
            other = Catalog(store.root / "catalog" / name)
        except (OSError, ValueError):
            continue  # its tokens are gone, so that nobody knows whose rows these are
        rows = {content: row for row, content in enumerate(other.iter_contents())}
        found = np.array([rows.get(content, -1) for content in own], dtype=np.int64)
        if (found >= 0).sum() > (0 if best is None else (best.rows >= 0).sum()):
            best = CacheDonor(folder, found, len(other))
    return best


def list_missing(catalog: Catalog, other: CacheDonor | None) -> Tensor:
    """(N,) catalog rows of the texts that another folder lacks."""
    if other is None:
        return torch.arange(len(catalog))
    return torch.from_numpy(np.flatnonzero(other.rows < 0))


def find_or_build(
    store: Store,
    kind: str,
    parts: Callable[[], Mapping[str, object]],
    write: Callable[[Path, CacheDonor | None], None],
    catalog: Catalog,
) -> CacheEntry:
    """Builds a folder of the store, or finds it, and takes the time.

    Args:
        store: The store.
        kind: The sort of folder.
        parts: Makes its key.
        write: Fills it, where another folder has some of its texts without encoding those.
        catalog: The texts.
    """
    out, key = CacheEntry(Path()), parts()

    def build_timed(folder: Path) -> Elapsed | None:
        began = time.perf_counter()
        other = find_donor(store, kind, key, catalog)
        write(folder, other)
        out.built, before, spent = True, 0.0, None
        out.encoded = len(catalog)
        if other is not None:
            out.taken = int((other.rows >= 0).sum())
            out.encoded -= out.taken
            # What they cost when they were made, by the share that was taken.
            share = out.taken / other.count
            before = share * _read_seconds(other.folder)
            whole = read_build_time(other.folder)
            if whole is not None:
                spent = Elapsed(share * whole.seconds, share * whole.cpu_seconds)
        seconds = before + time.perf_counter() - began
        (folder / _TIME).write_text(json.dumps({"seconds": seconds}))
        return spent

    out.folder = store.get_or_build(kind, key, build_timed)
    out.seconds = _read_seconds(out.folder)
    return out


def _read_seconds(folder: Path) -> float:
    """Time that building a folder took, with that of what it took over."""
    return float(json.loads((folder / _TIME).read_text())["seconds"])


def make_report(
    what: Literal["states", "vectors"],
    depth: int,
    dtype: Dtype,
    values: Tensor,
    made: CacheEntry,
    began: float,
    errors: Tensor,
    vector_error: float,
) -> CacheReport:
    """The report of what a run has kept.

    Args:
        what: What it is.
        depth: How many layers are not computed any more.
        dtype: In which precision.
        values: All of it, mapped.
        made: How it was got.
        began: When this start began, by `time.perf_counter`.
        errors: (N,) relative errors of a sample.
        vector_error: As in `CacheReport`.
    """
    return CacheReport(
        what=what,
        depth=depth,
        dtype=dtype,
        gb=values.nbytes / 1e9,
        built=made.built,
        encoded=made.encoded,
        taken=made.taken,
        seconds=time.perf_counter() - began,
        build_seconds=made.seconds,
        max_error=float(errors.max()),
        mean_error=float(errors.mean()),
        vector_error=vector_error,
    )


def make_key_parts(encoder: Encoder, catalog: Catalog) -> dict[str, object]:
    """What kept states and vectors depend on besides the weights: tokens, special ones, cuts."""
    return {
        "catalog": catalog.folder.name,
        "specials": [*encoder.specials.prefix, -1, *encoder.specials.suffix],
        "max_length": encoder.max_length,
    }


def hash_weights(encoder: Encoder, below: int) -> str:
    """SHA-256 of the model's settings and of all parameters below a layer.

    Nothing above enters it, so that all methods that leave the same layers alone share the states.

    Args:
        encoder: The encoder.
        below: The first layer that does not count; `depth + 1` for the whole model.
    """
    depths = compute_parameter_depths(encoder.model)
    # Settings such as the activation or a norm's epsilon change states as weights do.
    digest = hashlib.sha256(encoder.model.config.to_json_string().encode())  # type: ignore[operator, union-attr]
    for name, parameter in sorted(encoder.model.named_parameters()):
        if depths[name] < below:
            digest.update(name.encode())
            digest.update(_get_bytes(parameter))
    return digest.hexdigest()


def _get_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory, those that numpy has no type for too."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


@contextmanager
def switch_to_eval(encoder: Encoder, device: torch.device | None = None) -> Iterator[torch.device]:
    """The encoder in evaluation mode on a device, without gradients; then all is as before.

    Args:
        encoder: The encoder.
        device: Where to compute; None where it is.

    Yields:
        The device.
    """
    was, home = encoder.training, next(encoder.parameters()).device
    there = home if device is None else device
    encoder.eval().to(there)
    try:
        with torch.no_grad():
            yield there
    finally:
        encoder.to(home).train(was)


def sample_rows(catalog: Catalog) -> Tensor:
    """(S,) catalog rows that are computed again; others at each start."""
    # Unseeded: a damaged place that one start does not look at is found by a later one.
    count = min(_SAMPLE, len(catalog))
    return torch.from_numpy(np.random.default_rng().choice(len(catalog), count, replace=False))


def compute_relative_errors(kept: Tensor, now: Tensor) -> Tensor:
    """(N,) norms of the difference of rows (N, D) over the norms of the second ones, on the CPU."""
    difference = torch.linalg.vector_norm(kept.cpu().double() - now.cpu().double(), dim=-1)
    size = torch.linalg.vector_norm(now.cpu().double(), dim=-1)
    out: Tensor = difference / size.clamp(min=torch.finfo(torch.float32).tiny)
    return out


def check_errors(errors: Tensor, encoder: Encoder, dtype: Dtype, kind: str, folder: Path) -> None:
    """Raises an error where kept values differ from the model's: a stale file would skew a result.

    Args:
        errors: (N,) relative errors of a sample.
        encoder: What computed them.
        dtype: Of what is kept.
        kind: The sort of folder.
        folder: The folder.

    Raises:
        DataError: An error is too large, or no number.
    """
    worst = float(errors.max())
    if not worst <= (COARSE if encoder.in_bf16 else TOLERANCE[dtype]):
        raise DataError(
            f"kept {kind} differ from what the model computes now, by {worst:.1e} of their size; "
            f"remove the folder {folder}."
        )


def read_memmap(path: Path) -> Tensor:
    """A `.npy` file as a tensor whose pages stay in the file; it must never be written to."""
    array = np.load(path, mmap_mode="r")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
