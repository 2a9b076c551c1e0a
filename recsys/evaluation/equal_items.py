"""Items that count as hits for each other: several rows of a catalog may be one thing to a user."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.evaluation.ranking import mask_scores


class EqualItems:
    """Which items have the same value, such as the same title.

    Args:
        codes: (I,) number of each item's value.
    """

    def __init__(self, codes: Tensor) -> None:
        self._codes = codes
        self._order = codes.argsort(stable=True)
        self._counts = torch.bincount(codes)
        self._starts = self._counts.cumsum(0) - self._counts

    def list_others(self, targets: Tensor) -> Tensor:
        """(S, 2) place and catalog row of the items equal to each of some targets (Q,), not it."""
        code = self._codes.to(targets.device)[targets]
        count = self._counts.to(targets.device)[code]
        place = torch.repeat_interleave(torch.arange(len(targets), device=targets.device), count)
        first = self._starts.to(targets.device)[code] - (count.cumsum(0) - count)
        at = torch.arange(len(place), device=targets.device) + first[place]
        item = self._order.to(targets.device)[at]
        pairs = torch.stack([place, item], dim=1)
        return pairs[item != targets[place]]

    def take_best(self, scores: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Puts the best of the items that are a hit in the target's place, and masks the others.

        So that a case has one positive still, which is found as soon as any of them is.

        Args:
            scores: (Q, N) of the whole catalog.
            targets: (Q,) catalog rows.
            mask: (Q, N) bool, or (S, 2) query and item: what is not ranked.

        Returns:
            Targets (Q,) and mask, as they were given. A target stays where all are masked.
        """
        others = self.list_others(targets)
        if not len(others):
            return targets, mask
        queries = torch.unique(others[:, 0])
        place = targets.new_full((len(targets),), -1)
        place[queries] = torch.arange(len(queries), device=targets.device)
        own = torch.stack([queries, targets[queries]], dim=1)
        hits = torch.cat([own, others])  # the target first: it stays where equals score the same
        values = _mask_some(scores, mask, queries, place)[place[hits[:, 0]], hits[:, 1]]
        order = values.argsort(descending=True, stable=True)
        order = order[place[hits[order, 0]].argsort(stable=True)]
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = hits[order[1:], 0] != hits[order[:-1], 0]
        best = targets.clone()
        best[queries] = hits[order[first], 1]
        lost = hits[hits[:, 1] != best[hits[:, 0]]]
        if mask.dtype == torch.bool:
            return best, mask.index_put((lost[:, 0], lost[:, 1]), mask.new_tensor(True))
        return best, torch.cat([mask, lost])


def _mask_some(scores: Tensor, mask: Tensor, queries: Tensor, place: Tensor) -> Tensor:
    """Masked scores of some queries.

    Args:
        scores: (Q, N).
        mask: (Q, N) bool, or (S, 2) query and item.
        queries: (R,) the queries.
        place: (Q,) the place of each among those, -1 for none.
    """
    if mask.dtype == torch.bool:
        return mask_scores(scores[queries], mask[queries])
    mask = mask[place[mask[:, 0]] >= 0]
    return mask_scores(scores[queries], torch.stack([place[mask[:, 0]], mask[:, 1]], dim=1))
