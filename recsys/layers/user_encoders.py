"""User encoders over item vectors: every position of a history from one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.errors import ConfigError

BLOCK = 32
"""Positions that one product of a decayed sum spans: fewer lose to overhead, more to zeros."""


def make_residual(width: int) -> nn.Linear:
    """A linear map (..., D) -> (..., D) that is zero at first, to be added to its input."""
    out = nn.Linear(width, width, bias=False)
    nn.init.zeros_(out.weight)
    return out


class HistoryJoin(nn.Module):
    """A user's text and history as one vector: their sum, with a share of the history that trains.

    It is 1 at first, so that both count alike: for a cosine, each at length 1.

    Args:
        unit: Whether vectors are compared by their cosine.
    """

    def __init__(self, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.share = nn.Parameter(torch.ones(()))

    def forward(self, texts: Tensor, histories: Tensor) -> Tensor:
        """(Q, D) of texts and (Q, D) of histories, zero for none -> (Q, D)."""
        whole = F.normalize(histories.float(), dim=-1) if self.unit else histories
        return torch.stack(self.split(texts, whole)).sum(0)

    def split(self, texts: Tensor, histories: Tensor) -> tuple[Tensor, Tensor]:
        """What a history adds, or each part of it, and what a text adds.

        Args:
            texts: (Q, D).
            histories: (N, D) parts of one at length 1, for a cosine.
        """
        texts = F.normalize(texts.float(), dim=-1) if self.unit else texts.float()
        return self.share * histories.float(), texts


class HistoryPooling(nn.Module):
    """A weighted mean of a history: plain, decaying with the distance, or learned attention.

    The attention begins as the decay, and a decay of 0 is the mean.

    Args:
        kind: mean, recency or attention.
        width: D, width of an item vector.
        rate: Decay a step back, at the start.
    """

    def __init__(self, kind: str, width: int, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate)) if kind != "mean" else None
        self.attend = nn.Parameter(torch.zeros(width)) if kind == "attention" else None

    def forward(self, items: Tensor, history: Tensor, query: Tensor) -> Tensor:
        """The user vector of every query.

        Args:
            items: (U, D) item vectors.
            history: (B, H) places in them in time order, -1 for none (at the end).
            query: (Q, 2) row and length of the prefix that the query sees.

        Returns:
            (Q, D) in the dtype of `items`; zero for a query without history, so that every item
            scores the same.
        """
        row, prefix = query.unbind(1)
        history = _pad_empty_history(history)
        # In the items' own precision also under autocast: these are sums of many terms.
        with torch.autocast(items.device.type, enabled=False):
            if 0 < len(query) <= len(history):
                # One query a row: the sums of the other positions would be for nothing.
                return self._pool_queries(items, history[row], prefix)
            if self.attend is not None:
                at = row * (history.shape[1] + 1) + prefix
                return F.embedding(at, self._attend_prefixes(items, history).flatten(0, 1))
            at = prefix * len(history) + row
            return F.embedding(at, self._pool_prefixes(items, history).flatten(0, 1))

    def compute_weights(self, history: Tensor, query: Tensor, items: int) -> Tensor | None:
        """What each item counts in a query's mean, however often the history has it.

        Args:
            history: (B, H) as in `forward`.
            query: (Q, 2).
            items: U, how many item vectors there are.

        Returns:
            (Q, U), rows that sum to 1, or to 0 without a history; None where the weights depend on
            the items' vectors.
        """
        if self.attend is not None:
            return None
        # Without attention it is linear in the vectors, and the identity shows the map.
        weights: Tensor = self(torch.eye(items, device=history.device), history, query)
        return weights

    def _pool_queries(self, items: Tensor, history: Tensor, prefix: Tensor) -> Tensor:
        """(U, D), (Q, H), (Q,) -> (Q, D): a weighted sum for each query."""
        place = torch.arange(history.shape[1], device=history.device)
        inside = (place < prefix[:, None]) & (history >= 0)
        logits = self._compute_decay(prefix, place, items)
        if self.attend is not None:
            logits = logits + (_pad_empty_items(items) @ self.attend)[history.clamp(min=0)]
        weights = _compute_softmax(logits, inside)
        return F.embedding_bag(
            history.clamp(min=0), _pad_empty_items(items), per_sample_weights=weights, mode="sum"
        )

    def _attend_prefixes(self, items: Tensor, history: Tensor) -> Tensor:
        """(U, D), (B, H) -> (B, H + 1, D): each row has weights of its own."""
        vectors = F.embedding(history.clamp(min=0), _pad_empty_items(items))
        prefix, place = _make_grid(history)
        logits = self._compute_decay(prefix, place, items)
        if self.attend is not None:
            logits = logits + (vectors @ self.attend)[:, None, :]
        return _compute_softmax(logits, place < prefix[:, None]) @ vectors

    def _pool_prefixes(self, items: Tensor, history: Tensor) -> Tensor:
        """(U, D), (B, H) -> (H + 1, B, D): all rows have the same weights.

        A prefix that reaches into a block is the state before the block, scaled by the weight of
        what lies there, plus the block's own share: a prefix sum that never holds anything larger
        than a mean, whatever the sign of the rate. Padding stands at the end, where no prefix
        sees it.
        """
        prefix, place = _make_grid(history)
        weights = _compute_softmax(
            self._compute_decay(prefix, place, items), place < prefix[:, None]
        )
        vectors = F.embedding(history.T.clamp(min=0), _pad_empty_items(items)).flatten(1)
        parts: list[Tensor] = []
        for begin in range(0, history.shape[1], BLOCK):
            end = min(history.shape[1], begin + BLOCK)
            # The first block also holds the empty prefix.
            mine = weights[begin + 1 if begin else 0 : end + 1]
            part = mine[:, begin:end] @ vectors[begin:end]
            if begin:
                part = torch.addcmul(part, mine[:, :begin].sum(1, keepdim=True), parts[-1][-1:])
            parts.append(part)
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        return states.view(-1, history.shape[0], items.shape[1])

    def _compute_decay(self, prefix: Tensor, place: Tensor, items: Tensor) -> Tensor:
        """(N,), (H,) -> (N, H) logits by the distance from the end of the prefix."""
        distance = (prefix[:, None] - 1 - place).to(items.dtype)
        return torch.zeros_like(distance) if self.rate is None else -self.rate * distance


class CausalTransformer(nn.Module):
    """A causal Transformer over item vectors, added to their recency mix or alone.

    As SASRec (Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018), with norms
    before the blocks. Added to the mix, it has an output map that is zero at first, so that
    training begins at the quality of the mix; alone, its last norm gives the user, as there.
    Positions count from the start of the kept history: a prefix then has the same
    positions in training, where all prefixes of a row share a pass, as when it comes alone.

    Args:
        width: D, width of an item vector.
        positions: Longest history.
        layers: Number of layers.
        heads: Attention heads; they divide the width.
        dropout: Share of values dropped in training: inputs, attention and what a block adds.
        rate: Decay of the mix a step back, at the start; None for no mix.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        positions: int,
        layers: int,
        heads: int,
        dropout: float,
        rate: float | None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"architecture.attention_heads is {heads}, which does not divide the item "
                f"vectors' width of {width}; set it to {_find_divisor(width, heads)}."
            )
        # Item vectors of unit length would be small beside what the layers add.
        self.enter = nn.LayerNorm(width)
        self.positions = nn.Parameter(torch.empty(positions, width).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(_TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.close = _HistoryOutput(width, rate)

    def forward(self, items: Tensor, history: Tensor, query: Tensor) -> Tensor:
        """As `HistoryPooling.forward`: (U, D), (B, H), (Q, 2) -> (Q, D); zero without a history."""
        places = _pad_empty_history(history)
        x = self.enter(F.embedding(places.clamp(min=0), _pad_empty_items(items)))
        x = self.dropout(x + self.positions[: places.shape[1]])
        # Padding stands at the end, where no position that is asked for sees it.
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.close(x, items, history, query)
        return out


class GRUEncoder(nn.Module):
    """Gated recurrent units over item vectors, added to their recency mix or alone.

    As GRU4Rec (Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR
    2016), over item vectors in place of one-hot inputs. Added to the mix, it has an output map
    that is zero at first, as `CausalTransformer` has it. A prefix has the same state in training,
    where all prefixes of a row share a pass, as when it comes alone.

    Args:
        width: D, width of an item vector and of the states.
        layers: Number of layers.
        dropout: Share of values dropped in training: inputs and what each layer gives.
        rate: Decay of the mix a step back, at the start; None for no mix.
    """

    def __init__(self, width: int, layers: int, dropout: float, rate: float | None) -> None:
        super().__init__()
        # Item vectors of unit length would be small beside the biases.
        self.enter = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        # One module a layer: dropout between the layers of one draws from a state of its own,
        # which seeds do not reach.
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(layers))
        self.close = _HistoryOutput(width, rate)

    def forward(self, items: Tensor, history: Tensor, query: Tensor) -> Tensor:
        """As `HistoryPooling.forward`: (U, D), (B, H), (Q, 2) -> (Q, D); zero without a history."""
        x = self.dropout(
            self.enter(
                F.embedding(_pad_empty_history(history).clamp(min=0), _pad_empty_items(items))
            )
        )
        # Padding stands at the end: the states that are asked for come before it.
        for layer in self.layers:
            x = self.dropout(layer(x)[0])
        out: Tensor = self.close(x, items, history, query)
        return out


class _HistoryOutput(nn.Module):
    """The states of the queries' prefixes, added to the recency mix or alone.

    Args:
        width: D.
        rate: Decay of the mix a step back, at the start; None for no mix.
    """

    def __init__(self, width: int, rate: float | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = None if rate is None else HistoryPooling("recency", width, rate)
        self.out = None if rate is None else make_residual(width)

    def forward(self, states: Tensor, items: Tensor, history: Tensor, query: Tensor) -> Tensor:
        """(B, H, D), (U, D), (B, H), (Q, 2) -> (Q, D); zero without a history."""
        row, prefix = query.unbind(1)
        # An empty prefix takes the first position, and nothing of it below.
        at = row * states.shape[1] + (prefix - 1).clamp(min=0)
        own = self.norm(F.embedding(at, states.flatten(0, 1)))
        has = (prefix > 0)[:, None]
        if self.mix is None or self.out is None:
            alone: Tensor = own.to(items.dtype) * has
            return alone
        mixed: Tensor = self.mix(items, history, query)
        out: Tensor = mixed + self.out(own).to(mixed.dtype) * has
        return out


class _TransformerLayer(nn.Module):
    """Causal self-attention and a feed-forward map, each with its norm before and added."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.attention_norm = nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        # No wider inside, as in SASRec.
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, D) -> (B, H, D); no position sees a later one."""
        parts = self.inputs(self.attention_norm(x))
        parts = parts.view(*x.shape[:2], 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        share = self.share if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=share, is_causal=True)
        x = x + self.dropout(self.attended(seen.transpose(1, 2).flatten(2)))
        inner = F.gelu(self.inner(self.forward_norm(x)))
        out: Tensor = x + self.dropout(self.outer(inner))
        return out


def _pad_empty_history(history: Tensor) -> Tensor:
    """(B, H) with at least one place, so that every parameter takes part in every step."""
    return history if history.shape[1] else F.pad(history, (0, 1), value=-1)


def _pad_empty_items(items: Tensor) -> Tensor:
    """(U, D), or a row of zeros where there is no item that a place could point to."""
    return items if len(items) else items.new_zeros(1, items.shape[1])


def _make_grid(history: Tensor) -> tuple[Tensor, Tensor]:
    """Every length of a prefix (H + 1,) and every place (H,) of histories (B, H)."""
    every = torch.arange(history.shape[1] + 1, device=history.device)
    return every, every[:-1]


def _compute_softmax(logits: Tensor, inside: Tensor) -> Tensor:
    """Softmax over the last dimension among `inside`, zero elsewhere and where all is outside."""
    logits = logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
    return logits.softmax(-1).masked_fill(~inside, 0.0)


def _find_divisor(width: int, heads: int) -> int:
    """The largest number up to `heads` that divides `width`."""
    return max(n for n in range(1, heads + 1) if width % n == 0)
