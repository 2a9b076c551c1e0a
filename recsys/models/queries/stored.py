"""Training queries as a bundle holds them: whose they are, and what is left without some users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

OWNERS = "query_users"
"""Name of the user row of each query among the arrays; what has it holds queries of users."""

ENDED, WORDS, VECTORS = "ended", "rows", "vectors"
"""Of the items that each query ended in, of what words weigh in it, and of its vector."""

Arrays = Mapping[str, npt.NDArray[Any]]


def drop_users(state: Arrays, kept: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
    """The arrays without the queries of some users, and with the rows that the others have then.

    Args:
        state: What `query_knn` keeps, by name.
        kept: (users,) whether each user stays.
    """
    out = dict(state)
    owners = state[OWNERS]
    left = kept[owners]
    out[OWNERS] = (np.cumsum(kept) - 1)[owners[left]]
    if VECTORS in state:
        out[VECTORS] = state[VECTORS][left]
    for kind in (ENDED, WORDS):
        if f"{kind}_starts" not in state:
            continue
        sizes = np.diff(state[f"{kind}_starts"])
        entries = np.repeat(left, sizes)
        out[f"{kind}_starts"] = np.concatenate([[0], np.cumsum(sizes[left])]).astype(np.int64)
        for name in (f"{kind}_columns", f"{kind}_data"):
            if name in state:
                out[name] = state[name][entries]
    return out
