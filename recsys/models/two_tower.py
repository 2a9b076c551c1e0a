"""An item's vector and a user's, and what compares them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.architectures.two_tower import Config
from recsys.encoders.encoder import Encoder
from recsys.encoders.text_tower import Step, TextTower, UnitLength, list_head_steps
from recsys.errors import ConfigError
from recsys.evaluation.quantization import Precision, round_rows, score_pool
from recsys.layers.context_embedding import ContextEmbedding
from recsys.layers.item_cosines import compute_cosines
from recsys.layers.item_embeddings import (
    SPREAD,
    ItemEmbedding,
    PopularityPrior,
    TagEmbedding,
    compute_own_products,
    compute_shrinkage,
)
from recsys.layers.pair_mlp import PairMLP
from recsys.layers.user_encoders import (
    CausalTransformer,
    GRUEncoder,
    HistoryJoin,
    HistoryPooling,
    make_residual,
)
from recsys.models.tower_words import TowerWords
from recsys.recommender.components import PlainForm, TrainingComponents
from recsys.types import (
    Batch,
    HistoryScore,
    ItemBatch,
    Ragged,
    Scored,
    ScoreSplit,
    VectorScore,
)


class Model(TowerWords):
    """Item vectors from texts; user vectors from the history or from a text.

    The heads are residuals that are zero at first, so that training begins at the zero-shot
    output. So are vectors learned by row, tags and context, where they are added to texts; of
    rows alone they begin small and random (see `ItemEmbedding`). With separate
    towers an item's representation is two vectors: as an item, and as part of a history. With a
    popularity prior it has one more column, which is added to the item's scores.
    """

    def __init__(self, parts: TrainingComponents, config: Config) -> None:
        super().__init__(parts)
        self.from_text = config.user == "text"
        self.reads_plan = not self.from_text
        self.needs_history = not config.reads_user_texts
        self.starts_as_encoder = config.reads_tokens and config.mix  # no random Transformer or GRU
        self.by_text, count = config.reads_tokens, len(parts.texts)
        self.width = width = self.encoder.vector_width if self.by_text else config.width
        separate = config.towers == "separate"
        self._user_encoder = _copy_encoder(self.encoder) if separate else None
        kept = self.encoding.prefix if self.by_text and not self.from_text else None
        self._user_prefix = (
            None
            if kept is None or self._user_encoder is None
            else kept.share_with(self._user_encoder)
        )
        spread = 0.0 if self.by_text else SPREAD
        shares = compute_shrinkage(parts.train_counts, config.id_shrinkage)
        self.ids = (
            None
            if config.item == "text"
            else ItemEmbedding(count, width, spread, config.id_dropout, shares)
        )
        self.tags = None if parts.tags is None else TagEmbedding(parts.tags, width)
        adds = bool(parts.context_sizes) and config.context_as == "embedding"
        self.context = ContextEmbedding(parts.context_sizes, width) if adds else None
        self.item_head = make_residual(width) if config.heads else None
        self.user_head = make_residual(width) if config.heads else None
        self.mix = (
            None if self.from_text else _make_history_encoder(config, width, parts.max_history)
        )
        self.unit = config.score != "dot"
        self.join = HistoryJoin(self.unit) if config.user == "text+history" else None
        self.stored_as: Precision = config.vectors_as
        self.pool = config.pool
        # The logarithm of 1 / temperature, as in CLIP (Radford et al., ICML 2021).
        start = torch.tensor(-math.log(config.temperature))
        self.log_scale = nn.Parameter(start) if self.unit else None
        self.pairs = PairMLP(width, config.hidden) if config.score == "mlp" else None
        self.prior = (
            PopularityPrior(parts.train_counts, config.popularity_cold)
            if config.popularity
            else None
        )

    def index(self, plan: ItemBatch) -> Tensor:
        """(U, D), or (U, 2 D) where histories have an encoder of their own, and what is popular."""
        vectors = self._index_vectors(plan)
        if self.stored_as != "fp32" and not self.training:
            return round_rows(vectors, self.stored_as)
        if self.prior is None:
            return vectors
        return torch.cat([vectors, self.prior(plan.items)[:, None]], dim=-1)

    def _index_vectors(self, plan: ItemBatch) -> Tensor:
        """(U, D), or (U, 2 D) where histories have an encoder of their own."""
        added = self._embed_rows(plan.items)
        if self.by_text:
            vectors = self.apply_head(
                self.normalize_encoded(self.encode_items(plan)), self.item_head, added
            )
        elif added is None:
            raise RuntimeError("items without texts have learned vectors")
        else:
            vectors = self.apply_head(added, self.item_head)
        if self._user_encoder is None or self.from_text:
            return vectors
        own = self.normalize_encoded(self.encode_items(plan, self._user_encoder, self._user_prefix))
        return torch.cat([vectors, self.apply_head(own, None, added)], dim=-1)

    def keep_precision(self) -> None:
        """Item vectors are no longer rounded."""
        self.stored_as = "fp32"

    def select_item_vectors(self, items: Tensor) -> Tensor:
        """(N, D or 2 D) -> (N, D) what queries are compared with."""
        return items[:, : self.width]

    def compute_cosines(self, items: Tensor) -> Tensor:
        """Cosines between the vectors of items, (N, N)."""
        return torch.from_numpy(compute_cosines(self.select_item_vectors(items).cpu().numpy()))

    def describe_score(self, items: Tensor) -> VectorScore:
        """A product, of a cosine with its temperature; what is popular; an MLP is left out."""
        scale = 1.0 if self.log_scale is None else float(self.log_scale.detach().exp())
        added = None if self.prior is None else items[:, -1]
        whole = self.pairs is None and self.stored_as != "binary+int8"
        return VectorScore(scale, added, whole, self.unit)

    def make_item_tower(self) -> TextTower:
        """What makes an item's vector of its text alone.

        Raises:
            ConfigError: Vectors learned by row or of tags have a part in it.
        """
        if self.ids is not None or self.tags is not None:
            what = "architecture.item" if self.ids is not None else "architecture.categories"
            raise ConfigError(
                f"{what} gives items vectors that are learned beside their texts, so that no model "
                "of texts has the vectors of this run."
            )
        return TextTower(self.encoder, self._list_steps(self.item_head))

    def make_query_tower(self) -> TextTower:
        """What makes the vector of a free text: as the only item of a history, or as a user's text.

        Raises:
            ConfigError: Items have no texts, the context has a part in it, or a network reads the
                history.
        """
        if not self.by_text or self.parts.context_sizes:
            what = "architecture.context" if self.by_text else "architecture.item=id"
            raise ConfigError(f"{what}: the text alone does not make a query's vector.")
        alone = self.needs_history  # of a text beside a history, no history is there
        if alone and not isinstance(self.mix, HistoryPooling):
            raise ConfigError("architecture.history: a network makes a query of item vectors.")
        first = self.item_head if alone and self._user_encoder is None else None
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        return TextTower(encoder, self._list_steps(first, self.user_head), query=True)

    def _list_steps(self, *heads: nn.Linear | None) -> list[Step]:
        """What encoded texts pass on their way to a vector."""
        unit = self.unit or self.encoder.unit
        return [*([UnitLength()] if unit else []), *list_head_steps(heads, self.unit)]

    def select_directions(self, items: Tensor) -> Tensor:
        """All but the column of the popularity prior, which would hide equal vectors."""
        return items if self.prior is None else items[:, :-1]

    def _embed_rows(self, rows: Tensor) -> Tensor | None:
        """(U, D) what is learned of catalog rows and their tags, or None."""
        parts = [learned(rows) for learned in (self.ids, self.tags) if learned is not None]
        return torch.stack(parts).sum(0) if parts else None

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """User vectors, (Q, D)."""
        mixed = self.mix_history(batch, items)
        if self.needs_history:
            assert mixed is not None, "a history is all that there is"
            users = self.apply_head(mixed, self.user_head)
            return self.add_context(users, batch, batch.query[:, 1] > 0)
        texts = self._encode_users(self.user_texts.compose_tokens(batch))
        return self.add_context(self.make_text_users(texts, mixed), batch)

    def mix_history(self, batch: Batch, items: Tensor) -> Tensor | None:
        """(Q, D) what the histories of a batch say, zero for none; None where nothing reads them.

        Args:
            batch: The queries.
            items: (U, ...) representations of its plan.
        """
        if self.mix is None:
            return None
        vectors = self.select_directions(items)[:, -self.width :]
        mixed: Tensor = self.mix(vectors, batch.history, batch.query)
        return mixed

    def make_text_users(self, texts: Tensor, mixed: Tensor | None) -> Tensor:
        """(Q, D) vectors of users from those of their texts and of their histories.

        Args:
            texts: (Q, D) encoded.
            mixed: (Q, D) of histories; None: there are none.
        """
        if mixed is not None and self.join is not None:
            texts = self.join(texts, mixed)
        return self.apply_head(texts, self.user_head)

    def add_context(self, users: Tensor, batch: Batch, known: Tensor | None = None) -> Tensor:
        """Adds to user vectors (Q, D) what is known of the queries, or of those in `known` (Q,)."""
        if self.context is None:
            return users
        changed = users + self.context(batch.context)
        changed = F.normalize(changed, dim=-1) if self.unit else changed
        # Without a history the popular items answer; a zero vector has no length to divide by.
        return changed if known is None else torch.where(known[:, None], changed, users)

    def _encode_users(self, tokens: Ragged) -> Tensor:
        """(Q, D) encoded texts of users, before any head."""
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        if self.encoding.user_vectors is not None:
            # A second tower shares what does not train.
            vectors, made = self.encoding.user_vectors.encode(tokens)
            self.work.count_texts(encoder, None, encoder.compute_lengths(made))
            return self.normalize_encoded(vectors)
        moved = tokens.to(self.device)
        self.work.count_texts(encoder, None, encoder.compute_lengths(tokens.sizes))
        return self.normalize_encoded(encoder(moved, query=True))

    def normalize_encoded(self, x: Tensor) -> Tensor:
        """Encoded texts as those who made the model compare them; a cosine needs no such step."""
        return F.normalize(x.float(), dim=-1) if self.encoder.unit and not self.unit else x

    def apply_head(self, x: Tensor, head: nn.Module | None, added: Tensor | None = None) -> Tensor:
        """Adds what is learned, then a residual head; unit length for a cosine; fp32."""
        x = x.float()
        x = F.normalize(x, dim=-1) if self.unit else x
        if added is not None:
            x = F.normalize(x + added, dim=-1) if self.unit else x + added
        if head is None:
            return x
        x = x + head(x)
        return F.normalize(x, dim=-1) if self.unit else x

    def make_plain_form(self) -> PlainForm | None:
        """A decayed mean of item vectors, where nothing else makes a user; else None."""
        mix = self.mix
        if not isinstance(mix, HistoryPooling) or mix.attend is not None:
            return None
        if not self.needs_history:  # a text has a part in it
            return None
        if self.context is not None or self.pairs is not None or self.parts.masks is not None:
            return None
        if self.stored_as == "binary+int8":  # a pool is no product of arrays
            return None
        numbers = {
            "rate": 0.0 if mix.rate is None else float(mix.rate.detach()),
            "scale": 1.0 if self.log_scale is None else float(self.log_scale.detach().exp()),
            "unit": float(self.unit),
            "prior": float(self.prior is not None),
        }
        head = self.user_head
        arrays = {} if head is None else {"user_head": head.weight.detach()}
        return PlainForm("vectors", {"width": self.width, **numbers}, arrays)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, D) and (N, ...) of `index` -> (Q, N)."""
        vectors = items[:, : self.width]
        # In fp32 also under autocast: rounded to bf16, thousands of items would tie.
        with torch.autocast(queries.device.type, enabled=False):
            # The factor goes to the few queries: on the scores it is a pass over the catalog.
            scores = self._scale(queries.float()) @ vectors.float().T
        if self.stored_as == "binary+int8" and not self.training:
            return score_pool(queries, vectors, scores, self.pool)
        if self.prior is not None:
            scores = scores + items[:, -1]
        if self.pairs is None:
            return scores
        return scores + self.pairs.score_pairs(queries, vectors)

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """Scores of one query by a plain or decaying mean; the lengths of vectors count as fixed.

        The user's vector is a sum over the history, each part of which passes the head, which is
        linear, and is divided by the length that the whole vector has.
        """
        if not isinstance(self.mix, HistoryPooling) or self.pairs is not None:
            return None
        if self.stored_as == "binary+int8":  # nor is it a sum over the history
            return None
        if catalog is None:
            own, items = self.index(batch.plan), self.index(ItemBatch(rows, ()))
        else:
            own, items = catalog[batch.plan.items], catalog[rows]
        weights = self.mix.compute_weights(batch.history, batch.query, len(own))
        if weights is None:
            return None
        vectors = self.select_directions(own)[:, -self.width :]
        parts = weights[0][:, None] * vectors
        if self.join is not None:
            texts = self._encode_users(self.user_texts.compose_tokens(batch))
            parts = torch.cat(self.join.split(texts, self._share_length(parts)))
        parts = self._split_head(parts, self.user_head)
        added = {}
        if self.context is not None:
            parts = torch.cat([parts, self.context(batch.context)])
            parts = self._split_head(parts, None)
            added["context"] = self.score(parts[-1:], items)[0]
            parts = parts[:-1]
        if self.join is not None:
            added["text"] = self.score(parts[-1:], items)[0]
            parts = parts[:-1]
        # Every row of scores has the prior, and so has the row of no user at all.
        prior = self.score(parts.new_zeros(1, self.width), items)[0]
        if self.prior is not None:
            added = {name: of - prior for name, of in added.items()} | {"popularity": prior}
        return ScoreSplit((self.score(parts, items) - prior).T, added)

    def make_history_score(
        self, batch: Batch, rows: Tensor, catalog: Tensor
    ) -> HistoryScore | None:
        """Scores of one query; an item that says nothing has the mean vector of the catalog.

        Zero would not do: a cosine does not change between a vector and zero.
        """
        if self.mix is None:
            return None
        every = self.select_directions(catalog)[:, -self.width :].float()
        vectors = every[batch.plan.items]
        baseline = every.mean(0).expand_as(vectors)
        return HistoryScore(vectors, baseline, self.make_mixed_score(batch, catalog[rows]))

    def make_mixed_score(self, batch: Batch, items: Tensor) -> Callable[[Tensor], Tensor]:
        """(S, U, D) vectors of the history of the only query -> (S, N) scores of items (N, ...)."""
        mix, ((_, prefix),) = self.mix, batch.query.tolist()
        assert mix is not None, "users are made of item vectors"
        texts = None
        if self.join is not None:
            with torch.no_grad():
                texts = self._encode_users(self.user_texts.compose_tokens(batch))

        def score(own: Tensor) -> Tensor:
            copy = torch.arange(len(own), device=own.device)
            history = batch.history[0, :prefix] + own.shape[1] * copy[:, None]
            query = torch.stack([copy, torch.full_like(copy, prefix)], dim=1)
            users = mix(own.flatten(0, 1), history, query)
            if texts is not None and self.join is not None:
                users = self.join(texts.expand(len(own), -1), users)
            users = self.apply_head(users, self.user_head)
            if self.context is not None:
                codes = {name: of.expand(len(own)) for name, of in batch.context.items()}
                users = self.add_context(users, replace(batch, context=codes))
            return self.score(users, items)

        return score

    def _split_head(self, parts: Tensor, head: nn.Module | None) -> Tensor:
        """What `apply_head` makes of the sum of parts (N, D), part by part."""
        parts = self._share_length(parts)
        return parts if head is None else self._share_length(parts + head(parts))

    def _share_length(self, parts: Tensor) -> Tensor:
        """Parts (N, D) over the length of their sum, as `normalize` takes it, for a cosine."""
        return parts / parts.sum(0).norm().clamp(min=1e-12) if self.unit else parts

    def _scale(self, values: Tensor) -> Tensor:
        """Scores, or the queries of a product, by the learned inverse temperature."""
        return values if self.log_scale is None else values * self.log_scale.exp()

    def forward(self, batch: Batch) -> Scored:
        """Query and item vectors of the plan, and the scores of the candidates."""
        if self.ids is not None:
            self.ids.draw_dropout()
        # A user from a text is made of tokens: no vector of the history is asked for.
        items = self.index(batch.plan.select_candidates() if self.from_text else batch.plan)
        with self.watch.time_stage("user"):
            queries = self.queries(batch, items)
        vectors, places = items[:, : self.width], batch.candidates.clamp(min=0)
        with torch.autocast(queries.device.type, enabled=False):
            scores = self._scale(compute_own_products(queries.float(), vectors.float(), places))
        if self.prior is not None and len(items):
            scores = scores + items[places, -1]
        if self.pairs is not None:
            scores = scores + self.pairs.score_pairs(queries, vectors, places)
        return Scored(scores=scores, queries=queries, items=items)

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """The text in place of profile and titles, or as the only item of a history.

        Raises:
            ConfigError: Items have no texts.
        """
        if not self.by_text:
            raise ConfigError(
                "architecture.item=id reads no texts; give user= or history= in place of text=."
            )
        if self.mix is None or self.join is not None:
            asked = self._encode_users(self.user_texts.compose_with_text(batch, tokens))
            return self.add_context(self.make_text_users(asked, None), batch)
        encoder = self.encoder if self._user_encoder is None else self._user_encoder
        vector = self.normalize_encoded(encoder(tokens.to(self.device), query=True))
        head = self.item_head if self._user_encoder is None else None
        item, first = self.apply_head(vector, head), torch.zeros(1, 1, dtype=torch.long)
        only = torch.tensor([[0, 1]])
        mixed = self.mix(item, first.to(self.device), only.to(self.device))
        return self.add_context(self.apply_head(mixed, self.user_head), batch)


def _make_history_encoder(
    config: Config, width: int, longest: int
) -> HistoryPooling | CausalTransformer | GRUEncoder:
    """What turns a history's item vectors into the user's."""
    rate = config.recency if config.mix else None
    if config.history == "gru":
        return GRUEncoder(width, config.layers, config.dropout, rate)
    if config.history != "causal":
        return HistoryPooling(config.history, width, config.recency)
    return CausalTransformer(
        width,
        longest,
        layers=config.layers,
        heads=config.attention_heads,
        dropout=config.dropout,
        rate=rate,
    )


def _copy_encoder(encoder: Encoder) -> Encoder:
    """A copy of an encoder that shares what does not train."""
    shared: dict[int, object] = {id(p): p for p in encoder.parameters() if not p.requires_grad}
    return copy.deepcopy(encoder, shared)
