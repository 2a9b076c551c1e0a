"""Two towers: items from their texts, the user from item vectors or from a text."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys.config import choice_name, option
from recsys.context import Context
from recsys.data.usertexts import UserTexts
from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError
from recsys.histories import Causal, Mix, Recurrent, residual
from recsys.items import SPREAD, Ids, Tags, own_products
from recsys.recommender import Parts, Recommender
from recsys.types import Batch, ItemBatch, Ragged, Scored

if TYPE_CHECKING:
    from recsys.config import Run


@dataclass
class Config:
    """Options of the two towers."""

    gives: ClassVar[frozenset[str]] = frozenset({"queries", "scores", "table"})
    trains: ClassVar[bool] = True

    user: Literal["history", "text"] = option(
        "history", "the user from the history's item vectors, or from profile and titles as a text"
    )
    towers: Literal["shared", "separate"] = option(
        "shared", "one encoder for both, or one for items and one for users"
    )
    item: Literal["text", "id", "text+id"] = option(
        "text", "items from their texts, from vectors learned by row, or from the sum of both"
    )
    width: int = option(64, "of the vectors of item=id", least=1)
    categories: list[str] = option(
        [],
        "item columns whose tags add learned vectors to an item (as words they go into "
        "data.source.item_text)",
    )
    context: list[str] = option(
        [],
        "what a query is asked with: hour and weekday (UTC) of the target, and columns of the "
        "interactions that are known before it",
    )
    context_as: Literal["embedding", "text"] = option(
        "embedding",
        "learned vectors that are added to the user's, or words before a text user's profile, as "
        "in 'device: phone'",
    )
    history: Literal["mean", "recency", "attention", "causal", "gru"] = option(
        "recency",
        "how a history's item vectors become the user's; causal, gru: recency plus a causal "
        "Transformer (transformer is the same) or gated recurrent units",
        also={"transformer": "causal"},
    )
    mix: bool = option(
        True, "add the recency mix to causal and gru; false: they alone, as SASRec and GRU4Rec"
    )
    score: Literal["cosine", "dot", "mlp"] = option(
        "cosine", "learned temperature, plain product, or cosine plus an MLP on both vectors"
    )
    temperature: float = option(0.05, "of the cosine at the start")
    recency: float = option(0.3, "decay a step back in the history, at the start")
    layers: int = option(2, "of history=causal and gru", least=1)
    attention_heads: int = option(4, "of a layer of history=causal; they divide the width", least=1)
    dropout: float = option(0.2, "in history=causal and gru, below 1", least=0)
    heads: bool = option(True, "residual heads on item and user vectors, zero at first")
    hidden: int = option(256, "width of the MLP")

    @property
    def reads_tokens(self) -> bool:
        """Whether an encoder reads texts, so that it is loaded and they are tokenised."""
        return self.item != "id"

    @property
    def reads_user_texts(self) -> bool:
        """Whether user texts have to be tokenised."""
        return self.user == "text"

    @property
    def reads_item_vectors(self) -> bool:
        """Whether items pass the encoder on their own, so that their states can be kept."""
        return True

    @property
    def reads_tags(self) -> list[str]:
        """Item columns of tags."""
        return self.categories

    @property
    def reads_context(self) -> list[str]:
        """What of a query's situation its vector is made of: hour, weekday or columns."""
        return self.context

    @property
    def reads_context_texts(self) -> bool:
        """Whether that stands in the user's text."""
        return self.context_as == "text"

    def check(self, run: Run) -> None:
        """Refuses values that cannot be.

        Raises:
            ConfigError: A temperature or width that is not positive, or options that exclude
                each other.
        """
        if not self.temperature > 0:
            raise ConfigError("architecture.temperature must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"architecture.dropout is {self.dropout}; set it from 0 to below 1.")
        if self.history in ("causal", "gru") and self.user == "text":
            raise ConfigError(
                f"architecture.history={self.history} reads item vectors and architecture.user="
                "text none; set architecture.user=history."
            )
        if not self.mix and self.history not in ("causal", "gru"):
            raise ConfigError(
                f"architecture.mix=false leaves nothing of history={self.history}; it goes with "
                "causal and gru."
            )
        if self.context_as == "text":
            self._check_context()
        if self.item == "id":
            self._check_ids(run)
        if self.hidden < 1:
            raise ConfigError("architecture.hidden must be 1 or more.")
        shared = self.towers == "shared"
        if run.trainer.encoder_updates != "every_step" and shared is (self.user == "text"):
            raise ConfigError(
                "trainer.encoder_updates gives item vectors alone a table; let architecture.user="
                "history go with towers=shared, and user=text with towers=separate."
            )

    def _check_context(self) -> None:
        """Refuses context as text where there is none of either.

        Raises:
            ConfigError: There is no user text, or no context.
        """
        if self.user != "text":
            raise ConfigError(
                "architecture.context_as=text writes the context into the user's text, and "
                f"architecture.user={self.user} has none; set architecture.user=text, or "
                "architecture.context_as=embedding."
            )
        if not self.context:
            raise ConfigError(
                "architecture.context_as=text has no context to write; name it, as in "
                "architecture.context=[hour,weekday], or leave it out."
            )

    def _check_ids(self, run: Run) -> None:
        """Refuses what asks for texts where items have none.

        Raises:
            ConfigError: Something asks for them.
        """
        alone = "architecture.item=id loads no encoder and reads no text"
        if choice_name(run.tuning) != "frozen":
            raise ConfigError(
                f"{alone}: there is nothing for tuning={choice_name(run.tuning)} to adapt; set "
                "tuning=frozen."
            )
        wrong = {
            "architecture.user=text": self.user == "text",
            "architecture.towers=separate": self.towers == "separate",
            "trainer.batch_tokens": run.trainer.batch_tokens is not None,
            "trainer.encoder_updates": run.trainer.encoder_updates != "every_step",
            "profile=true": run.profile,
        }
        for name, asked in wrong.items():
            if asked:
                raise ConfigError(f"{alone}, and {name} needs one; leave that out.")


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
    quality. So are vectors learned by row, tags and context, where they are added to texts; of
    rows alone they begin small and random (see `recsys.items.Ids`). With separate towers an item's
    representation is two vectors: as an item, and as part of a history.
    """

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(parts)
        self.from_text = config.user == "text"
        self.needs_history = not self.from_text
        self.starts_as_encoder = config.reads_tokens and config.mix  # no random Transformer or GRU
        self.by_text, count = config.reads_tokens, len(parts.texts)
        self.width = width = self.encoder.width if self.by_text else config.width
        separate = config.towers == "separate"
        self._user_encoder = _second(self.encoder) if separate else None
        keeps = separate and parts.prefix is not None and not self.from_text
        self._user_prefix = (
            parts.prefix.of(self._user_encoder)
            if keeps and parts.prefix is not None and self._user_encoder is not None
            else None
        )
        spread = 0.0 if self.by_text else SPREAD
        self.ids = None if config.item == "text" else Ids(count, width, spread)
        self.tags = None if parts.tags is None else Tags(parts.tags, width)
        adds = bool(parts.situations) and config.context_as == "embedding"
        self.context = Context(parts.situations, width) if adds else None
        self.item_head = residual(width) if config.heads else None
        self.user_head = residual(width) if config.heads else None
        self.mix = None if self.from_text else _history_encoder(config, width, parts.max_history)
        self.unit = config.score != "dot"
        # The logarithm of 1 / temperature, as in CLIP (Radford et al., ICML 2021).
        start = torch.tensor(-math.log(config.temperature))
        self.log_scale = nn.Parameter(start) if self.unit else None
        self.pairs = _Pairs(width, config.hidden) if config.score == "mlp" else None

    def index(self, plan: ItemBatch) -> Tensor:
        """(U, D), or (U, 2 D) where histories have an encoder of their own."""
        added = self._learned(plan.items)
        if self.by_text:
            vectors = self._finish(self.encode_items(plan), self.item_head, added)
        elif added is None:
            raise RuntimeError("items without texts have learned vectors")
        else:
            vectors = self._finish(added, self.item_head)
        if self._user_encoder is None or self.from_text:
            return vectors
        own = self.encode_items(plan, self._user_encoder, self._user_prefix)
        return torch.cat([vectors, self._finish(own, None, added)], dim=-1)

    def _learned(self, rows: Tensor) -> Tensor | None:
        """(U, D) what is learned of catalog rows and their tags, or None."""
        parts = [learned(rows) for learned in (self.ids, self.tags) if learned is not None]
        return torch.stack(parts).sum(0) if parts else None

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """User vectors, (Q, D)."""
        if self.mix is None:
            users = self._encode_users(self._texts().tokens(batch))
            return self._in_context(users, batch)
        vectors = items[:, -self.width :]
        users = self._finish(self.mix(vectors, batch.history, batch.query), self.user_head)
        return self._in_context(users, batch, batch.query[:, 1] > 0)

    def _in_context(self, users: Tensor, batch: Batch, known: Tensor | None = None) -> Tensor:
        """Adds to user vectors (Q, D) what is known of the queries, or of those in `known` (Q,)."""
        if self.context is None:
            return users
        changed = users + self.context(batch.situation)
        changed = F.normalize(changed, dim=-1) if self.unit else changed
        # Without a history the popular items answer; a zero vector has no length to divide by.
        return changed if known is None else torch.where(known[:, None], changed, users)

    def _texts(self) -> UserTexts:
        if self.parts.user_texts is None:
            raise ConfigError("architecture.user=text needs user texts, and none were made.")
        return self.parts.user_texts

    def _encode_users(self, tokens: Ragged) -> Tensor:
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        moved = tokens.to(self.device)
        self.work.encode(encoder, None, encoder.lengths(tokens.sizes))
        return self._finish(encoder(moved), self.user_head)

    def _finish(self, x: Tensor, head: nn.Module | None, added: Tensor | None = None) -> Tensor:
        """Adds what is learned, then a residual head; unit length for a cosine; fp32."""
        x = x.float()
        x = F.normalize(x, dim=-1) if self.unit else x
        if added is not None:
            x = F.normalize(x + added, dim=-1) if self.unit else x + added
        if head is None:
            return x
        x = x + head(x)
        return F.normalize(x, dim=-1) if self.unit else x

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, D), (N, D or 2 D) -> (Q, N)."""
        vectors = items[:, : self.width]
        # In fp32 also under autocast: rounded to bf16, thousands of items would tie.
        with torch.autocast(queries.device.type, enabled=False):
            # The factor goes to the few queries: on the scores it is a pass over the catalog.
            scores = self._scaled(queries.float()) @ vectors.float().T
        if self.pairs is None:
            return scores
        return scores + self._paired(self.pairs, queries, vectors, None)

    def _paired(
        self, pairs: _Pairs, queries: Tensor, items: Tensor, places: Tensor | None
    ) -> Tensor:
        """What the MLP says of queries (Q, D) with items (U, D): (Q, U), or (Q, C) at places."""
        width = len(items) if places is None else places.shape[1]
        # The hidden layer of all pairs is large: a few million numbers at a time.
        block = max(1, (1 << 22) // max(1, width * pairs.out.in_features))

        def some(asked: Tensor, at: Tensor | None) -> Tensor:
            out: Tensor = pairs(asked[:, None], items[None] if at is None else items[at])
            return out

        # Kept for backward they would be as large together: where there are several, each is made
        # again there.
        asked = torch.split(queries, block)
        own = [None] * len(asked) if places is None else torch.split(places, block)
        parts = list(zip(asked, own, strict=True))
        once = len(parts) == 1 or not torch.is_grad_enabled()
        extra = [
            some(*part)
            if once
            else checkpoint(some, *part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
        return torch.cat(extra)

    def _scaled(self, values: Tensor) -> Tensor:
        """Scores, or the queries of a product, by the learned inverse temperature."""
        return values if self.log_scale is None else values * self.log_scale.exp()

    def forward(self, batch: Batch) -> Scored:
        """Query and item vectors of the plan, and the scores of the candidates."""
        # A user from a text is made of tokens: no vector of the history is asked for.
        items = self.index(batch.plan.candidates() if self.from_text else batch.plan)
        with self.watch.stage("user"):
            queries = self.queries(batch, items)
        vectors, places = items[:, : self.width], batch.candidates.clamp(min=0)
        with torch.autocast(queries.device.type, enabled=False):
            scores = self._scaled(own_products(queries.float(), vectors.float(), places))
        if self.pairs is not None:
            scores = scores + self._paired(self.pairs, queries, vectors, places)
        return Scored(scores=scores, queries=queries, items=items)

    def text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text in place of profile and titles, or as the only item of a history.

        Raises:
            ConfigError: Items have no texts.
        """
        if not self.by_text:
            raise ConfigError(
                "architecture.item=id reads no texts; give user= or history= in place of text=."
            )
        if self.mix is None:
            asked = self._texts().with_situation(batch, tokens)
            return self._in_context(self._encode_users(asked), batch)
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        vector = encoder(tokens.to(self.device))
        head = self.item_head if self._user_encoder is None else None
        item, first = self._finish(vector, head), torch.zeros(1, 1, dtype=torch.long)
        only = torch.tensor([[0, 1]])
        mixed = self.mix(item, first.to(self.device), only.to(self.device))
        return self._in_context(self._finish(mixed, self.user_head), batch)


def _history_encoder(config: Config, width: int, longest: int) -> Mix | Causal | Recurrent:
    """What turns a history's item vectors into the user's."""
    rate = config.recency if config.mix else None
    if config.history == "gru":
        return Recurrent(width, config.layers, config.dropout, rate)
    if config.history != "causal":
        return Mix(config.history, width, config.recency)
    return Causal(
        width,
        longest,
        layers=config.layers,
        heads=config.attention_heads,
        dropout=config.dropout,
        rate=rate,
    )


def _second(encoder: Encoder) -> Encoder:
    """A copy of an encoder that shares what does not train."""
    shared: dict[int, object] = {id(p): p for p in encoder.parameters() if not p.requires_grad}
    return copy.deepcopy(encoder, shared)
