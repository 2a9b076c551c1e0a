"""Kept token states as they lie on disk, and in the memory of the device that computes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.encoders.cache.common import Dtype, read_memmap
from recsys.errors import DataError
from recsys.types import upload

Place = Literal["auto", "disk", "memory"]

DTYPES: dict[Dtype, tuple[type[np.floating], torch.dtype]] = {
    "fp32": (np.float32, torch.float32),
    "fp16": (np.float16, torch.float16),
}
"""Each precision as numpy and as torch name it."""

_SHARE = 0.3  # of a GPU's free memory that kept states may take by themselves


class CachedStates:
    """Kept token states of a whole catalog: ragged, rows are tokens.

    They are mapped from disk, or also held in the memory of the device that computes; the twins of
    separate towers share them.

    Args:
        folder: What `FrozenLayerCache.build` made.
        place: disk: mapped only; memory: a copy on the computing device; auto: a copy on a GPU
            where it takes no more than a share of the free memory, else mapped only.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place = folder, place
        self.offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy")
        self.mapped = read_memmap(folder / "states.npy")
        self._held: Tensor | None = None
        self._asked: torch.device | None = None

    def place_on(self, device: torch.device) -> Tensor:
        """(T, D) the states that are the nearest to a device; where they lie is decided once."""
        if self._asked != device:
            self._asked = device
            fits = self.place == "memory"
            if self.place == "auto" and device.type == "cuda":
                free, _ = torch.cuda.mem_get_info(device)
                fits = self.mapped.nbytes <= _SHARE * free
            self._held = self.mapped.to(device, copy=True) if fits else None
        return self.mapped if self._held is None else self._held

    def gather(self, index: Tensor, device: torch.device) -> Tensor:
        """(N, D) the states at places (N,) on the host, on a device."""
        table = self.place_on(device)
        return upload(table.index_select(0, upload(index, table.device)), device)

    def read_row(self, row: int) -> Tensor:
        """(L, D) the states of one catalog row, from disk."""
        return self.mapped[self.offsets[row] : self.offsets[row + 1]]


def cast_states(states: Tensor, dtype: Dtype) -> Tensor:
    """States as they are kept, on the CPU.

    Raises:
        DataError: One is too large for half precision.
    """
    out = states.to(DTYPES[dtype][1]).cpu()
    if dtype == "fp16" and not out.isfinite().all():
        raise DataError(
            f"a state below the lowest trained layer is {float(states.abs().max()):.3g}, and half "
            "precision ends at 65504; set encoder.cache_dtype=fp32."
        )
    return out
