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

    Beside a text, rows can be left out in training, so that the rest learns to do without them as
    it must for a new item (Volkovs et al., DropoutNet: Addressing Cold Start in Recommender
    Systems, NeurIPS 2017), and shrunk, so that a row says no more than its item's events do.

    Args:
        items: I, items of the catalog.
        width: D, width of a vector.
        spread: Standard deviation of the entries at the start; 0 for zeros.
        dropout: Probability that a row is left out of a training step: for target, history and
            negatives alike. What stays is not scaled, so that it is what evaluation sees.
        shares: (I,) what each row counts, or None where all count in full.
    """

    def __init__(
        self,
        items: int,
        width: int,
        spread: float,
        dropout: float = 0.0,
        shares: Tensor | None = None,
    ) -> None:
        super().__init__()
        start = torch.zeros(items, width)
        self.vectors = nn.Parameter(start.normal_(std=spread) if spread else start)
        self.dropout = dropout
        # No buffers: DDP would send those of a whole catalog to every process in every step.
        self._shares = shares
        self._stays: Tensor | None = None

    def draw_dropout(self) -> Tensor | None:
        """Draws which rows stay in a training step (I,); until the next draw it is the same."""
        if not (self.training and self.dropout):
            return None
        self._stays = torch.rand(len(self.vectors), device=self.vectors.device) >= self.dropout
        return self._stays

    def forward(self, rows: Tensor) -> Tensor:
        """(U,) catalog rows -> (U, D)."""
        out = F.embedding(rows, self.vectors)
        if self._shares is not None:
            if self._shares.device != rows.device:
                self._shares = upload(self._shares, rows.device)
            out = out * self._shares[rows, None]
        if self.training and self.dropout:
            stays = self.draw_dropout() if self._stays is None else self._stays
            out = out if stays is None else out * stays[rows, None]
        return out


def compute_shrinkage(counts: Tensor, strength: float) -> Tensor | None:
    """(I,) n / (n + strength) of counts n (I,), exactly 0 for a count of 0; None without strength.

    The weight that an item's own mean gets beside the mean of all, where the variance within an
    item is `strength` times that between items.
    """
    counts = counts.float()
    return counts / (counts + strength) if strength else None


class PopularityPrior(nn.Module):
    """What is added to an item's scores for how often training shows it: w z, w = 0 at first.

    z is log(1 + n), centred and scaled over the items that training shows. What is 0 for all is
    nothing to a softmax, so that 0 is the mean of these items. Vectors that need not say what is
    popular are free for what goes together.

    Args:
        counts: (I,) n of each item.
        cold: Whether an item that training never shows is judged by its count of 0 too; otherwise
            it gets the mean, which says nothing of it.
    """

    def __init__(self, counts: Tensor, cold: bool) -> None:
        super().__init__()
        logs, shown = counts.float().log1p(), counts > 0
        spread = logs[shown].std(correction=0).clamp(min=1e-6)
        values = (logs - logs[shown].mean()) / spread
        self._values = values if cold else values.where(shown, 0.0)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, rows: Tensor) -> Tensor:
        """(U,) catalog rows -> (U,)."""
        if self._values.device != rows.device:
            self._values = upload(self._values, rows.device)
        return self.weight * self._values[rows]


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
