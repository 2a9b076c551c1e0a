"""What a batch is made of: rows with their queries, and lists to rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.columns.arrays import Ints, sample
from recsys.data.splits.split import Split

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
        missed: (N,) catalog row of the target where the list lacks it, which counts as a miss, else
            -1; None where no list may lack its target.
    """

    at: Ints
    candidates: Ints
    labels: Floats
    inserted: npt.NDArray[np.bool_]
    missed: Ints | None = None

    def select(self, chosen: Ints) -> CandidateLists:
        """Some of the lists, by their numbers."""
        return CandidateLists(
            self.at[chosen],
            self.candidates[chosen],
            self.labels[chosen],
            self.inserted[chosen],
            None if self.missed is None else self.missed[chosen],
        )


def make_label_lists(
    split: Split, role: int, limit: int | None = None, seed: int = 0
) -> CandidateLists:
    """A list a user: the events held out under `role`, each with its label.

    The history ends before the first of them, as if all had been shown at that moment.

    Args:
        split: The events.
        role: The part.
        limit: Keep a seeded sample of so many users; None for all.
        seed: Of that sample.
    """
    held = np.flatnonzero(split.role == role)
    owner = split.compute_user_rows()[held]
    users, first, sizes = np.unique(owner, return_index=True, return_counts=True)
    chosen = sample(np.arange(len(users)), limit, seed)
    first, sizes = first[chosen], sizes[chosen]
    place = np.arange(int(sizes.max(initial=1)))[None, :]
    inside = place < sizes[:, None]
    event = held[np.minimum(first[:, None] + place, max(0, len(held) - 1))]
    return CandidateLists(
        at=held[first],
        candidates=np.where(inside, split.item[event].astype(np.int64), -1),
        labels=np.where(inside, split.label[event], 0).astype(np.float32),
        inserted=np.zeros(len(first), dtype=np.bool_),
    )
