"""Two towers: items from their texts, the user from item vectors or from a text."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import option
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError
from recsys.recommender import Parts, Recommender
from recsys.types import Batch, ItemBatch, Ragged, Scored

if TYPE_CHECKING:
    from recsys.config import Run


@dataclass
class Config:
    """Options of the two towers."""

    gives: ClassVar[frozenset[str]] = frozenset({"queries", "scores"})
    trains: ClassVar[bool] = True

    user: Literal["history", "text"] = option(
        "history", "the user from the history's item vectors, or from profile and titles as a text"
    )
    towers: Literal["shared", "separate"] = option(
        "shared", "one encoder for both, or one for items and one for users"
    )
    history: Literal["mean", "recency", "attention"] = option(
        "recency", "how a history's item vectors become the user's"
    )
    score: Literal["cosine", "dot", "mlp"] = option(
        "cosine", "learned temperature, plain product, or cosine plus an MLP on both vectors"
    )
    temperature: float = option(0.05, "of the cosine at the start")
    recency: float = option(0.3, "decay a step back in the history, at the start")
    heads: bool = option(True, "residual heads on item and user vectors, zero at first")
    hidden: int = option(256, "width of the MLP")

    @property
    def reads_user_texts(self) -> bool:
        """Whether user texts have to be tokenised."""
        return self.user == "text"

    @property
    def reads_item_vectors(self) -> bool:
        """Whether items pass the encoder on their own, so that their states can be kept."""
        return True

    def check(self, run: Run) -> None:
        """Refuses values that cannot be.

        Raises:
            ConfigError: A temperature or width that is not positive.
        """
        if not self.temperature > 0:
            raise ConfigError("architecture.temperature must be above 0.")
        if self.hidden < 1:
            raise ConfigError("architecture.hidden must be 1 or more.")


class _Mix(nn.Module):
    """Weights of a history: a plain mean, a decay with the distance, or learned attention.

    The attention begins as the decay, and a decay of 0 is the mean.
    """

    def __init__(self, kind: str, width: int, rate: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate)) if kind != "mean" else None
        self.attend = nn.Parameter(torch.zeros(width)) if kind == "attention" else None

    def forward(self, items: Tensor, history: Tensor, prefix: Tensor) -> Tensor:
        """(U, D) items, (Q, H) places in them or -1, (Q,) lengths -> (Q, D).

        A query without history is the zero vector: every item scores the same.
        """
        place = torch.arange(history.shape[1], device=history.device)
        inside = (place < prefix[:, None]) & (history >= 0)
        logits = torch.zeros(history.shape, dtype=items.dtype, device=items.device)
        if self.rate is not None:
            logits = -self.rate * (prefix[:, None] - 1 - place).to(items.dtype)
        if self.attend is not None:
            logits = logits + (items @ self.attend)[history.clamp(min=0)]
        logits = logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1).masked_fill(~inside, 0.0).to(items.dtype)
        if not len(items):
            return items.new_zeros(len(history), items.shape[1])
        with torch.autocast(items.device.type, enabled=False):
            return F.embedding_bag(
                history.clamp(min=0), items, per_sample_weights=weights, mode="sum"
            )


class _Pairs(nn.Module):
    """An MLP on the concatenation of both vectors; its last layer is zero at first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # A linear map of a concatenation is the sum of two linear maps.
        self.user = nn.Linear(width, hidden)
        self.item = nn.Linear(width, hidden, bias=False)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, items: Tensor) -> Tensor:
        """(..., D) and (..., D) -> (...), broadcast."""
        hidden = F.gelu(self.user(queries) + self.item(items))
        out: Tensor = self.out(hidden).squeeze(-1)
        return out


class Model(Recommender):
    """Item vectors from texts; user vectors from the history or from a text.

    The heads are residuals that are zero at first, so that training begins at the zero-shot
    quality. With separate towers an item's representation is two vectors: as an item, and as part
    of a history.
    """

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(parts)
        self.from_text = config.user == "text"
        self.needs_history = not self.from_text
        self.width = width = self.encoder.width
        separate = config.towers == "separate"
        self._user_encoder = _second(self.encoder) if separate else None
        keeps = separate and parts.prefix is not None and not self.from_text
        self._user_prefix = (
            parts.prefix.of(self._user_encoder)
            if keeps and parts.prefix is not None and self._user_encoder is not None
            else None
        )
        self.item_head = _residual(width) if config.heads else None
        self.user_head = _residual(width) if config.heads else None
        self.mix = None if self.from_text else _Mix(config.history, width, config.recency)
        self.unit = config.score != "dot"
        # The logarithm of 1 / temperature, as in CLIP (Radford et al., ICML 2021).
        start = torch.tensor(-math.log(config.temperature))
        self.log_scale = nn.Parameter(start) if self.unit else None
        self.pairs = _Pairs(width, config.hidden) if config.score == "mlp" else None

    def index(self, plan: ItemBatch) -> Tensor:
        """(U, D), or (U, 2 D) where histories have an encoder of their own."""
        vectors = self._finish(self.encode_items(plan), self.item_head)
        if self._user_encoder is None or self.from_text:
            return vectors
        own = self.encode_items(plan, self._user_encoder, self._user_prefix)
        return torch.cat([vectors, F.normalize(own, dim=-1) if self.unit else own], dim=-1)

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """User vectors, (Q, D)."""
        if self.mix is None:
            if self.parts.user_texts is None:
                raise ConfigError("architecture.user=text needs user texts, and none were made.")
            return self._encode_users(self.parts.user_texts.tokens(batch))
        row, prefix = batch.query.unbind(1)
        vectors = items[:, -self.width :]
        return self._finish(self.mix(vectors, batch.history[row], prefix), self.user_head)

    def _encode_users(self, tokens: Ragged) -> Tensor:
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        moved = Ragged(tokens.values.to(self.device), tokens.sizes)
        return self._finish(encoder(moved), self.user_head)

    def _finish(self, x: Tensor, head: nn.Module | None) -> Tensor:
        """Adds a residual head; unit length where the score is a cosine; fp32."""
        x = x.float()
        x = F.normalize(x, dim=-1) if self.unit else x
        if head is None:
            return x
        x = x + head(x)
        return F.normalize(x, dim=-1) if self.unit else x

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, D), (N, D or 2 D) -> (Q, N)."""
        vectors = items[:, : self.width]
        # In fp32 also under autocast: rounded to bf16, thousands of items would tie.
        with torch.autocast(queries.device.type, enabled=False):
            scores = self._scaled(queries.float() @ vectors.float().T)
        if self.pairs is None:
            return scores
        # The hidden layer of all pairs is large: a few million numbers at a time.
        block = max(1, (1 << 22) // max(1, len(vectors) * self.pairs.out.in_features))
        extra = [self.pairs(q[:, None], vectors[None]) for q in torch.split(queries, block)]
        return scores + torch.cat(extra)

    def _scaled(self, scores: Tensor) -> Tensor:
        return scores if self.log_scale is None else scores * self.log_scale.exp()

    def forward(self, batch: Batch) -> Scored:
        """Query and item vectors of the plan, and the scores of the candidates."""
        items = self.index(batch.plan)
        queries = self.queries(batch, items)
        picked = items[batch.candidates.clamp(min=0)][..., : self.width]
        with torch.autocast(queries.device.type, enabled=False):
            products = (picked.float() @ queries.float().unsqueeze(-1)).squeeze(-1)
            scores = self._scaled(products)
        if self.pairs is not None:
            scores = scores + self.pairs(queries[:, None], picked)
        return Scored(scores=scores, queries=queries, items=items)

    def text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text as a user's text, or as the only item of a history."""
        if self.from_text:
            return self._encode_users(tokens)
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        vector = encoder(Ragged(tokens.values.to(self.device), tokens.sizes))
        head = self.item_head if self._user_encoder is None else None
        return self._finish(self._finish(vector, head), self.user_head)


def _residual(width: int) -> nn.Linear:
    """A linear map that is zero at first."""
    out = nn.Linear(width, width, bias=False)
    nn.init.zeros_(out.weight)
    return out


def _second(encoder: Encoder) -> Encoder:
    """A copy of an encoder that shares what does not train."""
    shared: dict[int, object] = {id(p): p for p in encoder.parameters() if not p.requires_grad}
    return copy.deepcopy(encoder, shared)
