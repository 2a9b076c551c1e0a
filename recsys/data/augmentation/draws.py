"""Random numbers that are a function of what they are drawn for, all of a batch at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.columns.arrays import Ints

Doubles = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def draw_uniform(*keys: Ints | int) -> Doubles:
    """Numbers from 0 to below 1, one for each combination of keys.

    The same keys give the same number on every machine, whatever is drawn beside it: neither the
    size of a batch nor the number of ranks nor a stop and a resume changes what is drawn.
    Keys are mixed in one after the other by splitmix64 (Steele, Lea and Flood, Fast Splittable
    Pseudorandom Number Generators, OOPSLA 2014).

    Args:
        keys: Whole numbers, or arrays of them that broadcast against each other.

    Returns:
        float64 of the broadcast shape, of one dimension at least.
    """
    state: npt.NDArray[np.uint64] = np.zeros(1, dtype=np.uint64)
    for key in keys:
        # the sums wrap: they count modulo 2^64
        state = state + np.atleast_1d(np.asarray(key, dtype=np.int64)).astype(np.uint64) + _STEP
        for shift, factor in _ROUNDS:
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
