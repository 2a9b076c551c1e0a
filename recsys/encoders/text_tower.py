"""From a text to the vector that is compared: an encoder, and the maps behind it.

It is all that another library needs to have the same vectors, where no code of this one runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.encoders.encoder import Encoder
from recsys.encoders.padding import move_left
from recsys.types import Ragged


class UnitLength(nn.Module):
    """Brings vectors to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return F.normalize(x, dim=-1)


Step = nn.Linear | UnitLength


class TextTower(nn.Module):
    """What makes the vector of a text.

    Args:
        encoder: Gives the pooled vector.
        steps: What that passes, one after the other.
        query: Whether its texts ask, and not those of items: prompts differ.
    """

    def __init__(self, encoder: Encoder, steps: Sequence[Step], query: bool = False) -> None:
        super().__init__()
        self.encoder, self.query = encoder, query
        self.steps = nn.Sequential(*steps)

    def forward(self, tokens: Ragged) -> Tensor:
        """(N, D) float32 vectors of texts given as raw token ids, those of a prompt included."""
        vectors: Tensor = self.steps(self.encoder(tokens, query=self.query).float())
        return vectors

    def encode_padded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, D) float32 vectors of padded texts, as other libraries have them.

        Args:
            ids: (N, L) token ids with the special ones, padded at either side.
            mask: (N, L) 1 for real tokens.
        """
        ids, mask = move_left(ids, mask)
        return self.finish_states(self.compute_padded_states(ids, mask), mask)

    def compute_padded_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, L, D) states of texts that are padded at the right."""
        return self.encoder.run_model(None, mask, {"input_ids": ids})

    def finish_states(self, states: Tensor, mask: Tensor) -> Tensor:
        """(N, D) float32 vectors of token states (N, L, D) and their mask (N, L)."""
        pooled = self.encoder.pool_states(states, mask.bool(), self.query)
        vectors: Tensor = self.steps(pooled.float())
        return vectors


@dataclass(frozen=True)
class TokenTowers:
    """What makes the token vectors of items and of queries, which are compared one by one.

    A score is the scale times the mean, over a query's tokens, of their largest product with a
    token of the item.

    Attributes:
        encoder: Gives token states.
        items: What the states of an item pass, one after the other.
        queries: The same of a query's.
        scale: What the mean is multiplied by.
        specials: Whether the states of special tokens take part.
    """

    encoder: Encoder
    items: Sequence[Step]
    queries: Sequence[Step]
    scale: float
    specials: bool


def fold_residual(head: nn.Linear) -> nn.Linear:
    """The one map that x + head(x) is."""
    width = head.in_features
    out = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        out.weight.copy_(head.weight.detach().float().cpu() + torch.eye(width))
    return out


def list_head_steps(heads: Iterable[nn.Linear | None], unit: bool) -> list[Step]:
    """What residual heads do to a vector, one after the other; one that is still zero does nothing.

    Args:
        heads: The heads, None where there is none.
        unit: Whether a vector has length 1 behind each.
    """
    steps: list[Step] = []
    for head in heads:
        if head is not None and bool(head.weight.detach().any()):
            steps += [fold_residual(head), UnitLength()] if unit else [fold_residual(head)]
    return steps
