"""Vectors with the ids of what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Vectors(NamedTuple):
    """Vectors with their ids.

    Attributes:
        ids: (N,) of items or users; of a history, its ids with commas between them.
        vectors: (N, D) float32.
    """

    ids: list[str]
    vectors: NDArray[np.float32]


class TokenVectors(NamedTuple):
    """Vectors of the tokens of texts, one text after the other.

    Attributes:
        ids: (N,) of items, or the texts themselves.
        offsets: (N + 1,) int64; text n has the rows from offsets[n] up to offsets[n + 1].
        vectors: (sum of L, D) float32, of length 1.
    """

    ids: list[str]
    offsets: NDArray[np.int64]
    vectors: NDArray[np.float32]
