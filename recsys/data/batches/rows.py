"""What a batch is made of: rows with their queries, and lists to rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.columns.arrays import Ints

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BatchRows:
    """Rows of a batch: each a window of a user's positive events, with its queries.

    Attributes:
        user: (B,) user rows.
        start: (B,) first event of the history window, counted among the positive events.
        stop: (B,) one past its last.
        row: (Q,) which row a query belongs to.
        prefix: (Q,) how many events of the window the query sees.
        candidates: (Q, C) catalog rows, -1 for none; column 0 is the target in training.
        labels: (Q, C) 1 for a positive, else 0.
        weight: (Q, C) observed weight.
        case: (Q,) number of the case, or -1.
        event: (Q,) the event, among all, at whose time it is asked.
    """

    user: Ints
    start: Ints
    stop: Ints
    row: Ints
    prefix: Ints
    candidates: Ints
    labels: Floats
    weight: Floats
    case: Ints
    event: Ints


@dataclass(frozen=True)
class CandidateLists:
    """What is ranked for each case, where it is not the whole catalog.

    Attributes:
        at: (N,) event numbers: a history is what comes before.
        candidates: (N, C) catalog rows, -1 for none.
        labels: (N, C) 1 for a positive, else 0.
        inserted: (N,) whether the target had to be put into the list.
    """

    at: Ints
    candidates: Ints
    labels: Floats
    inserted: npt.NDArray[np.bool_]
