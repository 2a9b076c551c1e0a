"""Features of a query's context as vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ContextEmbedding(nn.Module):
    """The sum of learned vectors of what is known of a query, zero at first.

    Args:
        sizes: How many codes there are, by name.
        width: D, width of a vector.
    """

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.names = tuple(sizes)
        ends = np.cumsum(list(sizes.values())).tolist()
        self.starts = dict(zip(sizes, [0, *ends[:-1]], strict=True))
        self.vectors = nn.Parameter(torch.zeros(ends[-1], width))

    def forward(self, context: Mapping[str, Tensor]) -> Tensor:
        """(Q,) codes by name -> (Q, D)."""
        at = torch.stack([context[name] + self.starts[name] for name in self.names], dim=1)
        return F.embedding(at, self.vectors).sum(1)
