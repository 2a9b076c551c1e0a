"""Row numbers of millions of ids, without a Python object an id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

_PIECE = 1_000_000  # ids that are looked up at a time
_SEEDS = 8


class IdLookup:
    """Finds ids in a list of ids, exactly.

    A hash of 64 bits proposes the one id that it may be, and the texts are compared. That takes a
    third of the time of a cast to an enumeration, whose map does not fit into a processor's cache.

    Args:
        ids: Text, each once and none missing.

    Raises:
        ValueError: Ids are given twice.
    """

    def __init__(self, ids: pl.Series) -> None:
        self._ids = ids.rechunk()
        for self._seed in range(_SEEDS):
            hashes = self._ids.hash(self._seed).to_numpy()
            self._order = np.argsort(hashes).astype(np.int32)
            self._hashes = hashes[self._order]
            # Two ids with one hash could not be told apart: another seed parts them.
            if not (self._hashes[1:] == self._hashes[:-1]).any():
                return
        raise ValueError("ids are given twice")

    def find_rows(self, names: pl.Series) -> npt.NDArray[np.int32]:
        """(N,) row of each of N names, -1 for one that is unknown or missing."""
        out = np.full(len(names), -1, dtype=np.int32)
        if not len(self._ids):
            return out
        for start in range(0, len(names), _PIECE):
            piece = names.slice(start, _PIECE)
            place = np.searchsorted(self._hashes, piece.hash(self._seed).to_numpy())
            row = self._order[np.minimum(place, len(self._order) - 1)]
            same = (self._ids.gather(row) == piece).fill_null(False).to_numpy()
            out[start : start + _PIECE] = np.where(same, row, -1)
        return out
