"""What an MLP makes of a query's vector and an item's, for many pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class PairMLP(nn.Module):
    """An MLP on the concatenation of both vectors; its last layer is zero at first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # A linear map of a concatenation is the sum of two linear maps.
        self.user = nn.Linear(width, hidden)
        self.item = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        # The score is the plain product at first. The other layers get a gradient as soon as the
        # first step has moved this one away from zero.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, items: Tensor) -> Tensor:
        """(..., D) and (..., D) -> (...), broadcast."""
        hidden = F.gelu(self.user(queries) + self.item(items))
        out: Tensor = self.out(hidden).squeeze(-1)
        return out

    def score_pairs(self, queries: Tensor, items: Tensor, places: Tensor | None = None) -> Tensor:
        """Of queries (Q, D) with items (U, D): (Q, U), or (Q, C) with those at places (Q, C)."""
        width = len(items) if places is None else places.shape[1]
        # The hidden layer of all pairs is large: a few million numbers at a time.
        block = max(1, (1 << 22) // max(1, width * self.out.in_features))

        def score_block(asked: Tensor, at: Tensor | None) -> Tensor:
            out: Tensor = self(asked[:, None], items[None] if at is None else items[at])
            return out

        # Kept for backward they would be as large together: where there are several, each is made
        # again there.
        asked = torch.split(queries, block)
        own = [None] * len(asked) if places is None else torch.split(places, block)
        parts = list(zip(asked, own, strict=True))
        once = len(parts) == 1 or not torch.is_grad_enabled()
        extra = [
            score_block(*part)
            if once
            else checkpoint(score_block, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        return torch.cat(extra)
