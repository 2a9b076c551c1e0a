"""Turns the token states of a text into one vector.

All take states (N, L, D) and a mask (N, L) that is true for real tokens, special tokens included,
with the padding at the right; all return (N, D).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError


class Mean(nn.Module):
    """Mean of the real tokens, special ones included (Reimers and Gurevych 2019, section 3)."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)


class First(nn.Module):
    """State of the first token, the [CLS] of BERT."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        return states[:, 0]


class Last(nn.Module):
    """State of the last real token, the only one of a causal model that has seen all others."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        rows = torch.arange(states.shape[0], device=states.device)
        return states[rows, mask.long().sum(1) - 1]


class Attention(nn.Module):
    """Mean weighted by a learned query; the query is zero at first, which makes it `Mean`.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        logits = (states @ self.query.to(states.dtype)) / states.shape[-1] ** 0.5
        share = logits.masked_fill(~mask, float("-inf")).softmax(1)
        pooled: Tensor = (states * share.unsqueeze(-1)).sum(1)
        return pooled


def make(name: str, width: int) -> nn.Module:
    """Makes the pooling called `name` for states of the given width.

    Raises:
        ConfigError: No pooling has this name.
    """
    if name == "mean":
        return Mean()
    if name == "cls":
        return First()
    if name == "last":
        return Last()
    if name == "attention":
        return Attention(width)
    raise ConfigError(f"encoder.pooling is {name!r}; choose mean, cls, last or attention.")
