"""Turns the token states of a text into one vector.

All take states (N, L, D) and a mask (N, L) that is true for the tokens that count, special tokens
included, with the padding at the right; all return (N, D). Where a prompt does not count, its
tokens at the left are left out of the mask too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError


class Mean(nn.Module):
    """Mean of the real tokens, special ones included (Reimers and Gurevych 2019, section 3)."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


class RootMean(nn.Module):
    """Sum of the real tokens over the square root of their number."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        weight = mask.unsqueeze(-1).to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp(min=1).sqrt()


class WeightedMean(nn.Module):
    """Mean weighted by place, from 1 (Muennighoff 2022, SGPT, section 3.1)."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        # In fp32: half precision cannot tell large places apart.
        place = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=torch.float32)
        weight = (mask * place).unsqueeze(-1)
        pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return pooled.to(states.dtype)


class Maximum(nn.Module):
    """The largest number of each column."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        return states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)


class First(nn.Module):
    """State of the first token that counts, the [CLS] of BERT."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        rows = torch.arange(states.shape[0], device=states.device)
        return states[rows, mask.int().argmax(1)]


class Last(nn.Module):
    """State of the last real token, the only one of a causal model that has seen all others."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, D)."""
        rows = torch.arange(states.shape[0], device=states.device)
        place = torch.arange(mask.shape[1], device=mask.device)
        return states[rows, (mask * place).amax(1)]


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


class Joined(nn.Module):
    """Several poolings of the same states, one behind the other.

    Args:
        parts: The poolings.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pools (N, L, D) and (N, L) to (N, parts * D)."""
        return torch.cat([part(states, mask) for part in self.parts], dim=-1)


PLAIN = {
    "mean": Mean,
    "cls": First,
    "last": Last,
    "max": Maximum,
    "mean_sqrt_len": RootMean,
    "weightedmean": WeightedMean,
}


def make_pooling(names: str | Sequence[str], width: int) -> nn.Module:
    """Makes the pooling of this name, or those of these names together.

    Args:
        names: A name, or several.
        width: D, of the states.

    Raises:
        ConfigError: No pooling has this name.
    """
    if not isinstance(names, str):
        made = [make_pooling(name, width) for name in names]
        return made[0] if len(made) == 1 else Joined(made)
    if names == "attention":
        return Attention(width)
    if names not in PLAIN:
        raise ConfigError(f"encoder.pooling is {names!r}; choose {', '.join(PLAIN)} or attention.")
    return PLAIN[names]()
