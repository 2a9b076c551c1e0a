"""What baselines that count events share: matrices of histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.data.training_events import Interactions
from recsys.errors import ConfigError
from recsys.types import Batch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def require_interactions(interactions: Interactions | None, name: str) -> Interactions:
    """The training events, for an architecture that cannot do without.

    Raises:
        ConfigError: There are none.
    """
    if interactions is None or not bool(interactions.chosen.any()):
        raise ConfigError(
            f"architecture {name} counts the positive events of training, and the split holds "
            "none; choose another split, or an architecture that reads texts."
        )
    return interactions


def gather_history_rows(batch: Batch, items: Tensor) -> Tensor:
    """What each query may see, as catalog rows in time order.

    Args:
        batch: The batch.
        items: (U,) catalog rows of its plan.

    Returns:
        (Q, H) int64, -1 for none, at the end.
    """
    row, prefix = batch.query.unbind(1)
    history = batch.history[row]
    place = torch.arange(history.shape[1], device=history.device)
    inside = (place < prefix[:, None]) & (history >= 0)
    if not len(items):
        return torch.full_like(history, -1)
    return torch.where(inside, items[history.clamp(min=0)], -1)


def make_history_matrix(rows: Tensor, items: int, decay: float, binary: bool) -> csr_matrix:
    """Histories as rows of a sparse matrix.

    Args:
        rows: (Q, H) catalog rows in time order, -1 at the end for none.
        items: I, items of the catalog.
        decay: The weight of an event is exp(-decay) to the power of its distance from the latest.
        binary: An item that stands several times in a history counts as its latest event, in
            place of the sum.

    Returns:
        (Q, I) float32.
    """
    from scipy.sparse import csr_matrix

    had = rows.cpu().numpy()
    query, place = np.nonzero(had >= 0)
    length = (had >= 0).sum(1)
    item = had[query, place]
    weight = np.exp(-decay * (length[query] - 1 - place)).astype(np.float32)
    if binary:
        # the last of equal keys, read from behind, is the latest event
        _, latest = np.unique((query * items + item)[::-1], return_index=True)
        kept = len(item) - 1 - latest
        query, item, weight = query[kept], item[kept], weight[kept]
    out = csr_matrix((weight, (query, item)), shape=(len(had), items))
    out.sort_indices()
    return out


def split_history(had: csr_matrix, items: Tensor) -> csr_matrix:
    """A single history (1, I) as one row for each of its items (U,): (U, I)."""
    from scipy.sparse import csr_matrix

    own = items.cpu().numpy()
    weight = had.toarray()[0, own]
    return csr_matrix((weight, (np.arange(len(own)), own)), shape=(len(own), had.shape[1]))
