"""Hard negatives: items that another method ranks high for a query, and that are not its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.data.batches.negatives import NegativeSampler, make_query_key, mask_unavailable
from recsys.data.batches.rows import BatchRows
from recsys.data.columns.arrays import Ints, expand_sizes
from recsys.data.splits.availability import AvailabilityWindows

if TYPE_CHECKING:
    from recsys.data.batches.examples import Examples


def count_hard_negatives(negatives: int, share: float) -> int:
    """How many of a query's negatives are hard, a half rounded up."""
    return int(negatives * share + 0.5)


def list_excluded_items(examples: Examples, at: Ints) -> tuple[Ints, Ints]:
    """What is no negative of some queries: their targets, and the user's training positives.

    What is held out for validation and test plays no part, be it liked or not: to leave it out
    would tell training what is asked later.

    Args:
        examples: The training queries.
        at: (Q,) event numbers.

    Returns:
        Place of the query and catalog row of each such item, each (S,); with repeats.
    """
    users, items = examples.get_train_pairs()
    owner = np.searchsorted(examples.split.offsets, at, side="right") - 1
    low = np.searchsorted(users, owner)
    query, place = expand_sizes(np.searchsorted(users, owner, side="right") - low)
    targets = examples.split.item[at].astype(np.int64)
    return (
        np.concatenate([query, np.arange(len(at))]),
        np.concatenate([items[low[query] + place], targets]),
    )


@dataclass(frozen=True)
class HardNegatives:
    """What was mined for the training queries.

    Attributes:
        at: (N,) event numbers, increasing.
        items: (N, T) catalog rows of the hard items of each, best first, -1 at the end for none.
    """

    at: Ints
    items: npt.NDArray[np.int32]


@dataclass(frozen=True)
class HardNegativeSampler:
    """Gives hard negatives in part; the others are drawn as without them.

    Attributes:
        drawn: Draws the others.
        mined: The hard ones.
        share: Of a query's negatives, how many are hard.
        windows: When items can be had; None: always.
    """

    drawn: NegativeSampler
    mined: HardNegatives
    share: float
    windows: AvailabilityWindows | None = None

    def sample(self, rows: BatchRows, n: int, seed: int, epoch: int) -> Ints:
        """(Q, n) as without hard ones, but that hard ones stand in the first places.

        They are drawn without replacement: of the few that are mined the best would come again and
        again. Where a query has too few, drawn ones keep their places.
        """
        out = self.drawn.sample(rows, n, seed, epoch)
        count = count_hard_negatives(n, self.share)
        mined = self.mined.items[np.searchsorted(self.mined.at, rows.event)].astype(np.int64)
        mined = mask_unavailable(mined, rows, self.windows)
        for q in range(len(rows.row)):
            # The last number tells this stream from that of the drawn ones.
            key = [*make_query_key(rows, q, seed, epoch), 1]
            pool = mined[q][mined[q] >= 0]
            hard = pool[np.random.default_rng(key).permutation(len(pool))[:count]]
            out[q, : len(hard)] = hard
        return out
