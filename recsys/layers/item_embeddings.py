"""Item vectors that are learned by catalog row and by tags, and queries' products with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.types import upload

SPREAD = 0.02
"""Standard deviation of learned vectors at the start, where they stand alone."""


class ItemEmbedding(nn.Module):
    """A learned vector an item.

    A row gets a gradient where training shows its item, as a target, in a history or as a
    negative. Any other keeps its start: what is zero stays zero, and a small random vector keeps
    its direction, which weight decay alone makes shorter.

    Args:
        items: I, items of the catalog.
        width: D, width of a vector.
        spread: Standard deviation of the entries at the start; 0 for zeros.
    """

    def __init__(self, items: int, width: int, spread: float) -> None:
        super().__init__()
        start = torch.zeros(items, width)
        self.vectors = nn.Parameter(start.normal_(std=spread) if spread else start)

    def forward(self, rows: Tensor) -> Tensor:
        """(U,) catalog rows -> (U, D)."""
        return F.embedding(rows, self.vectors)


class TagEmbedding(nn.Module):
    """The mean of learned vectors of an item's tags, zero at first; zero without tags.

    Args:
        codes: (I, T) number of each tag of an item from 1, 0 for none.
        width: D, width of a vector.
    """

    def __init__(self, codes: Tensor, width: int) -> None:
        super().__init__()
        # No buffer: DDP would send those of a whole catalog to every process in every step.
        self._codes = codes
        self.vectors = nn.Parameter(torch.zeros(int(codes.max()) + 1, width))

    def forward(self, rows: Tensor) -> Tensor:
        """(U,) catalog rows -> (U, D)."""
        if self._codes.device != rows.device:
            self._codes = upload(self._codes, rows.device)
        codes = self._codes[rows]
        has = (codes > 0).to(self.vectors.dtype)
        total = (F.embedding(codes, self.vectors) * has[..., None]).sum(1)
        return total / has.sum(1).clamp(min=1)[:, None]


def compute_own_products(queries: Tensor, items: Tensor, places: Tensor) -> Tensor:
    """Products of each query with item vectors of its own.

    Neither forward nor backward picks a vector for each place: with all positions of a history
    and hundreds of negatives each, these would be far larger than all else in a step.

    Args:
        queries: (Q, D).
        items: (U, D).
        places: (Q, C) which of them each query asks for.

    Returns:
        (Q, C).
    """
    if torch.is_grad_enabled() and places.numel():
        out: Tensor = _OwnProducts.apply(queries, items, places)  # type: ignore[no-untyped-call]
        return out
    return (F.embedding(places, items) @ queries.unsqueeze(-1)).squeeze(-1)


class _OwnProducts(torch.autograd.Function):
    """A weighted bag of items has all that is needed.

    The gradient of its weights, where the queries are the gradient of the bags, is the products;
    with the gradient of the products for weights, the bags are the gradient of the queries, and
    the gradient of its items is that of the items.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, places: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(queries, items, places)
        with torch.enable_grad():
            weights = torch.zeros(places.shape, dtype=items.dtype, device=items.device)
            weights.requires_grad_()
            bags = _compute_bags(places, items.detach(), weights)
            return torch.autograd.grad(bags, weights, queries.detach())[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401
        queries, items, places = ctx.saved_tensors
        asked = bool(ctx.needs_input_grad[1])
        with torch.enable_grad():
            moved = items.detach().requires_grad_(asked)
            bags = _compute_bags(places, moved, out.contiguous())
            to_items = torch.autograd.grad(bags, moved, queries)[0] if asked else None
        return bags.detach() if ctx.needs_input_grad[0] else None, to_items, None


def _compute_bags(places: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    """(Q, C), (U, D), (Q, C) -> (Q, D) weighted sums of items."""
    return F.embedding_bag(places, items, per_sample_weights=weights, mode="sum")
