"""What the words of titles and users add to the scores of two towers."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.passages import Piece, list_query_pieces, make_text_score
from recsys.errors import ConfigError
from recsys.layers.item_embeddings import ItemEmbedding, PopularityPrior, TagEmbedding
from recsys.recommender.trainable import TrainableRecommender
from recsys.types import AskedText, Batch, ItemBatch, TokenScore


class TowerWords(TrainableRecommender):
    """Base of two towers: scores as functions of the tokens of one text at a time.

    Attributes:
        by_text: Whether items have texts.
        width: D, of a vector.
        item_head: Of item vectors, or None.
        user_head: Of user vectors, or None.
        mix: Makes a user of item vectors; None: users are texts.
        ids: Vectors learned by row, or None.
        tags: Vectors learned of tags, or None.
        prior: What is added for how popular an item is, or None.
    """

    by_text: bool
    width: int
    _user_encoder: Encoder | None
    item_head: nn.Linear | None
    user_head: nn.Linear | None
    mix: nn.Module | None
    ids: ItemEmbedding | None
    tags: TagEmbedding | None
    prior: PopularityPrior | None

    @abc.abstractmethod
    def normalize_encoded(self, x: Tensor) -> Tensor:
        """Encoded texts as those who made the model compare them; a cosine needs no such step."""

    @abc.abstractmethod
    def apply_head(self, x: Tensor, head: nn.Module | None, added: Tensor | None = None) -> Tensor:
        """Adds what is learned, then a residual head; unit length for a cosine; fp32."""

    @abc.abstractmethod
    def add_context(self, users: Tensor, batch: Batch, known: Tensor | None = None) -> Tensor:
        """Adds to user vectors (Q, D) what is known of the queries, or of those in `known` (Q,)."""

    @abc.abstractmethod
    def mix_history(self, batch: Batch, items: Tensor) -> Tensor | None:
        """(Q, D) what histories say, from representations of the plan; None: nothing reads them."""

    @abc.abstractmethod
    def make_text_users(self, texts: Tensor, mixed: Tensor | None) -> Tensor:
        """(Q, D) vectors of users from those of encoded texts and of histories, if any."""

    @abc.abstractmethod
    def make_mixed_score(self, batch: Batch, items: Tensor) -> Callable[[Tensor], Tensor]:
        """(S, U, D) vectors of the history of the only query -> (S, N) scores of items (N, ...)."""

    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> list[TokenScore]:
        """The item's title with the query's vector fixed, and what asks with the item's fixed.

        Of a history, each title is read apart while all other vectors stay.
        """
        if not self.by_text:
            raise ConfigError(
                "tokens=true: architecture.item=id reads no texts, so that no word has a part in a "
                "score; leave tokens= out."
            )
        with torch.no_grad():
            own, items = self.index(batch.plan), self.index(self._plan_row(row))
            if asked is not None:
                query = self.make_text_query(batch, asked.text, asked.tokens)
            elif self.needs_history and not len(own):
                return []  # popularity answers
            else:
                query = self.ranker.queries(batch, own)
        out = [self._read_item(batch, query, row, asked is not None)]
        if asked is None and self.parts.masks is not None:
            return out  # what asks is the mean over masked copies of a history
        if not self.needs_history:
            mixed = None if asked is not None else self.mix_history(batch, own)
            mixed = None if mixed is None else mixed.detach()
            return [*out, self._read_user(batch, items, asked, mixed)]
        if asked is not None:
            return [*out, self._read_asked(batch, items, asked)]
        return [*out, *(self._read_title(batch, items, own, n) for n in range(len(own)))]

    def _plan_row(self, row: int) -> ItemBatch:
        return ItemBatch(torch.tensor([row], device=self.device), ())

    def _read_item(self, batch: Batch, query: Tensor, row: int, asked: bool) -> TokenScore:
        """The title of the item that is scored."""
        ranker = self if asked else self.ranker
        prior = None if self.prior is None else self.prior(self._plan_row(row).items).detach()

        def compare(pooled: Tensor, added: Tensor | None, prior: Tensor | None) -> Tensor:
            items = self.apply_head(self.normalize_encoded(pooled), self.item_head, added)
            if self.prior is not None:
                column = items.new_zeros(len(items), 1)
                items = torch.cat([items, column if prior is None else column + prior], dim=-1)
            return ranker.score(query, items)[0]

        added, left = self._peel_learned(row)
        without = {name: partial(compare, added=of, prior=prior) for name, of in left.items()}
        if prior is not None:  # by then, nothing that is learned of the row is left
            without["popularity"] = partial(compare, added=None, prior=None)
        whole = partial(compare, added=added, prior=prior)
        return self._make_title_score("item", row, self.encoder, whole, without)

    def _read_title(self, batch: Batch, items: Tensor, own: Tensor, place: int) -> TokenScore:
        """The title of one item of the history, by its place in the plan."""
        vectors = self.select_directions(own)[:, -self.width :].float()
        mixed, row = self.make_mixed_score(batch, items), int(batch.plan.rows[place])
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        head = self.item_head if self._user_encoder is None else None
        here = torch.arange(len(own), device=own.device)[:, None] == place

        def compare(pooled: Tensor, added: Tensor | None) -> Tensor:
            title = self.apply_head(self.normalize_encoded(pooled), head, added)
            return mixed(torch.where(here, title[:, None], vectors))[:, 0]

        added, left = self._peel_learned(row)
        without = {name: partial(compare, added=of) for name, of in left.items()}
        return self._make_title_score("title", row, encoder, partial(compare, added=added), without)

    def _peel_learned(self, row: int) -> tuple[Tensor | None, dict[str, Tensor | None]]:
        """(1, D) what is learned of a row beside its text, and what is left without each of it."""
        rows = self._plan_row(row).items
        parts = {"learned vector": self.ids, "categories": self.tags}
        learned = {name: of(rows).detach() for name, of in parts.items() if of is not None}
        names = list(learned)
        left = [torch.stack(list(learned.values())[at:]).sum(0) for at in range(len(names))]
        return (left[0] if left else None), dict(zip(names, [*left[1:], None], strict=False))

    def _make_title_score(
        self,
        kind: Literal["item", "title"],
        row: int,
        encoder: Encoder,
        compare: Callable[[Tensor], Tensor],
        without: Mapping[str, Callable[[Tensor], Tensor]],
    ) -> TokenScore:
        """A score as a function of the tokens of an item's text."""
        spans = self.encoding.spans
        piece = Piece(kind, self.parts.texts[row], row, spans.item_prompt)
        tokens = self.encoding.gather_tokens(torch.tensor([row]), None).to(self.device)
        owner = torch.zeros(len(tokens.values), dtype=torch.long)
        return make_text_score(encoder, spans, [piece], tokens, owner, compare, without)

    def _read_user(
        self, batch: Batch, items: Tensor, asked: AskedText | None, mixed: Tensor | None
    ) -> TokenScore:
        """The text of a user, or one that asks in its place; what a history says stays."""
        texts, written, spans = self.user_texts, self.parts.written, self.encoding.spans
        assert written is not None, "users are texts"
        given = None if asked is None else asked.tokens
        tokens = (
            texts.compose_tokens(batch) if given is None else texts.compose_with_text(batch, given)
        )

        def compare(pooled: Tensor) -> Tensor:
            history = None if mixed is None else mixed.expand(len(pooled), -1)
            users = self.make_text_users(self.normalize_encoded(pooled), history)
            return self.score(self.add_context(users, batch), items)[:, 0]

        return make_text_score(
            self.encoder if self._user_encoder is None else self._user_encoder,
            spans,
            list_query_pieces(written, batch, asked, spans.query_prompt, texts.latest is not None),
            tokens.to(self.device),
            texts.number_pieces(batch, given),
            compare,
            query=True,
        )

    def _read_asked(self, batch: Batch, items: Tensor, asked: AskedText) -> TokenScore:
        """A text that asks as the only item of a history."""
        alone = replace(
            batch, history=torch.zeros_like(batch.query[:, :1]), query=torch.tensor([[0, 1]])
        )
        mixed, spans = self.make_mixed_score(alone, items), self.encoding.spans
        head = self.item_head if self._user_encoder is None else None

        def compare(pooled: Tensor) -> Tensor:
            title = self.apply_head(self.normalize_encoded(pooled), head)
            return mixed(title[:, None])[:, 0]

        return make_text_score(
            self.encoder if self._user_encoder is None else self._user_encoder,
            spans,
            [Piece("text", asked.text, None, spans.query_prompt)],
            asked.tokens.to(self.device),
            torch.zeros(len(asked.tokens.values), dtype=torch.long),
            compare,
            query=True,
        )
