"""The abstract Recommender: what ranks items for queries, trained or not."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from recsys.encoders.weights.quantized import count_parameters
from recsys.errors import ConfigError
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.ranking import Ranker, mask_scores, score_items, select_stably
from recsys.recommender.components import Components, PlainForm
from recsys.runtime.progress import track
from recsys.types import (
    AskedText,
    Batch,
    HistoryScore,
    ItemBatch,
    Ragged,
    ScoreSplit,
    TokenScore,
    TokenSplit,
    VectorScore,
    Witnesses,
)

if TYPE_CHECKING:  # it imports transformers, which what only counts does without
    from recsys.encoders.text_tower import TextTower, TokenTowers


class Recommender(nn.Module, abc.ABC):
    """Base of every architecture, which adds `index`, `queries`, `score` and `forward`.

    One that trains derives from `recsys.recommender.trainable.TrainableRecommender`.

    Attributes:
        needs_history: Whether a query without history cannot be answered; popularity answers it.
        ranks_catalog: Whether it can score all items for many queries, and not lists alone.
        reads_plan: Whether `queries` reads representations of items; False: of texts alone.
        has_witnesses: Whether scores are made of the choices of others: see `count_witnesses`.
    """

    needs_history = False
    reads_plan = True
    has_witnesses = False
    ranks_catalog = True

    def __init__(self, parts: Components) -> None:
        super().__init__()
        self.parts = parts
        self.evaluator = self.make_evaluator()

    @final
    def make_evaluator(self) -> Evaluator:
        """Ranks cases as this run's result does, with counts of its own."""
        parts = self.parts
        return Evaluator(
            parts.ranking,
            parts.ks,
            parts.mask_history,
            parts.counts,
            parts.label,
            parts.windows,
            parts.equal,
            parts.apart,
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.evaluator.metrics.device

    def count_parameters(self) -> tuple[int, int]:
        """How many parameters it has, and how many of them train."""
        return count_parameters(self), 0

    @property
    def ranker(self) -> Ranker:
        """What ranks cases and answers queries with a history: the recommender by itself."""
        return self

    @abc.abstractmethod
    def index(self, plan: ItemBatch) -> Tensor:
        """Representations of a plan's items, (U, ...)."""

    @abc.abstractmethod
    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """Representations of the queries, (Q, ...), from those of the plan's items."""

    @abc.abstractmethod
    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores of every query with every item, (Q, N)."""

    def make_text_query(self, batch: Batch, text: str, tokens: Ragged) -> Tensor:
        """What a free text asks for, in place of a user.

        Args:
            batch: One query without history, as `Examples.make_serving_batch` makes it.
            text: The text.
            tokens: Its raw token ids, one text.

        Returns:
            The query's representation (1, ...).

        Raises:
            ConfigError: The architecture cannot read texts.
        """
        raise ConfigError(
            f"The architecture {self._get_name()} does not read texts; give user= or history= "
            "instead."
        )

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """What it has computed of the training events, by name, to be made of again without them.

        The same names come back as `Components.served`. What a fit decided and what trained are no
        part of it: they have files of their own.

        Raises:
            ConfigError: The architecture does not say.
        """
        raise ConfigError(
            f"{type(self).__module__} cannot be put into a bundle: it has no make_serving_state, "
            "which gives what it computed of the training events (recsys.recommender.base)."
        )

    def make_plain_form(self) -> PlainForm | None:
        """How histories are scored where a few products of arrays do; None where they do not."""
        return None

    def select_item_vectors(self, items: Tensor) -> Tensor:
        """Of representations (N, ...) of items, a vector of each, (N, D), to compare items by.

        Raises:
            ConfigError: The architecture has none.
        """
        raise ConfigError(f"{type(self).__module__} has no vector for each item.")

    def describe_score(self, items: Tensor) -> VectorScore:
        """How a score is made of two vectors, where it is.

        Args:
            items: (I, ...) what `index_catalog` gave.

        Raises:
            ConfigError: The architecture has no vector for each item.
        """
        raise ConfigError(f"{type(self).__module__} has no vector for each item.")

    def keep_precision(self) -> None:
        """Has item vectors be in full precision from now on; here they are."""

    def make_item_tower(self) -> TextTower:
        """What makes an item's vector of its text alone, for systems without our code.

        Raises:
            ConfigError: Something else than the text has a part in it.
        """
        raise ConfigError(f"{type(self).__module__} makes no vector of a text.")

    def make_query_tower(self) -> TextTower:
        """What makes the vector of a free text, as `make_text_query` does.

        Raises:
            ConfigError: Something else than the text has a part in it, or than maps.
        """
        raise ConfigError(f"{type(self).__module__} makes no vector of a text.")

    def make_token_towers(self) -> TokenTowers:
        """What makes token vectors of texts, for systems without our code.

        Raises:
            ConfigError: Vectors of tokens are not what is compared.
        """
        raise ConfigError(f"{type(self).__module__} makes no vectors of tokens.")

    def select_directions(self, items: Tensor) -> Tensor:
        """What of representations (N, ...) of items tells them apart by its direction: all."""
        return items

    def encode_item_tokens(self, rows: Tensor) -> Ragged:
        """Token vectors (sum of L, D) of items (N,), as they are compared with those of a query.

        Args:
            rows: Ascending catalog rows on the host.

        Raises:
            ConfigError: The architecture has none.
        """
        raise ConfigError(f"{type(self).__module__} has no vector for each token.")

    def encode_text_tokens(self, tokens: Ragged) -> Ragged:
        """Token vectors (sum of L, D) of texts that ask, given as raw token ids.

        Raises:
            ConfigError: The architecture has none.
        """
        raise ConfigError(f"{type(self).__module__} has no vector for each token.")

    def compute_cosines(self, items: Tensor) -> Tensor | None:
        """How alike items are, by what the model has of each.

        Args:
            items: (N, ...) representations of items.

        Returns:
            (N, N) on the host; None where it has nothing of an item by itself.
        """
        return None

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """What each item of a history adds to scores, where these are such sums.

        Args:
            batch: One query with a history, as `Examples.make_serving_batch` makes it.
            rows: (N,) catalog rows of the items that are scored.
            catalog: (I, ...) what `index_catalog` gave; None: representations are made.

        Returns:
            Parts that sum to the scores; None where a score is no sum over the history.
        """
        return None

    def count_witnesses(self, query: Tensor, rows: Tensor) -> list[Witnesses]:
        """Whose choices speak for items, for each of some, where `has_witnesses`.

        Args:
            query: (1, ...) a query's representation.
            rows: (N,) catalog rows of the items.
        """
        raise NotImplementedError(f"{type(self).__module__} has has_witnesses, and counts none")

    def make_history_score(
        self, batch: Batch, rows: Tensor, catalog: Tensor
    ) -> HistoryScore | None:
        """Scores as a function of the item vectors of a history, where it is one.

        Args:
            batch: One query with a history, as `Examples.make_serving_batch` makes it.
            rows: (N,) catalog rows of the items that are scored.
            catalog: (I, ...) representations of all items.
        """
        return None

    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> Sequence[TokenScore | TokenSplit]:
        """The score of an item by the tokens of the texts that it is made of.

        Args:
            batch: One query, as `Examples.make_serving_batch` makes it.
            row: Catalog row of the item.
            asked: What is looked for in place of a history, or None.

        Returns:
            Each is the whole score, seen from some of the texts, while all else stays as it is; of
            a history whose titles are read apart, one for each of them, in the order of the plan.

        Raises:
            ConfigError: The architecture reads no words, or does not say which.
        """
        raise ConfigError(
            f"tokens=true: a score of {self._get_name()} is not made of the words of a text; leave "
            "tokens= out."
        )

    def _get_name(self) -> str:
        """What users know the architecture by."""
        return type(self).__module__.rpartition(".")[2]

    def _encodes_catalog(self) -> bool:
        """Whether the representations of all items take so long that it is shown."""
        return False

    @final
    @torch.no_grad()
    def index_catalog(self, block: int = 1024, rows: Tensor | None = None) -> Tensor:
        """(I, ...) representations of all items, in evaluation mode, a block at a time.

        Args:
            block: How many at a time.
            rows: (N,) those that are asked for; None: all.
        """
        was = self.training
        self.eval()
        rows = torch.arange(len(self.parts.texts)) if rows is None else rows
        rows = rows.to(self.device)
        out = []
        with track("encoding the catalog", len(rows), "items", self._encodes_catalog()) as task:
            for part in torch.split(rows, block):
                out.append(self.index(ItemBatch(part, ())))
                task.advance(len(part))
        self.train(was)
        return torch.cat(out)

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) scores of the candidates from the representations of the plan's items.

        An architecture that scores pairs one by one scores only those.
        """
        scores = self.score(self.queries(batch, items), items)
        return scores.gather(1, batch.candidates.clamp(min=0))

    def get_popularity(self) -> Tensor:
        """(I,) what a query without history is answered with, where only the history counts."""
        return self.parts.counts.to(self.device).float()

    @final
    def evaluate(self, batches: Iterable[Batch], keep: int = 0) -> dict[str, float]:
        """Ranks all cases outside of a Trainer, as baselines need it.

        Args:
            batches: The cases.
            keep: How many of the best items of each case of the catalog its row keeps.
        """
        self.eval()
        self.evaluator.keep = keep
        self.evaluator.start(self)
        for batch in batches:
            self.evaluator.step(self.ranker, batch)
        return self.evaluator.end()

    @final
    @torch.no_grad()
    def score_query(
        self,
        batch: Batch,
        query: Tensor | None = None,
        pool: Tensor | None = None,
        items: Tensor | None = None,
    ) -> Tensor:
        """(1, N) scores of a single query; popularity's without the history that is needed.

        Args:
            batch: One query, as `Examples.make_serving_batch` makes it.
            query: (1, ...) its representation, or None to make it from the batch.
            pool: (N,) catalog rows to score, or None for all.
            items: (I, ...) what `index_catalog` gave, or None to ask it, or of a pool `index`.
        """
        if self.training:  # a walk through all modules takes a query a millisecond
            self.eval()
        empty = batch.at_host.query[:1, 1] == 0 if query is None else torch.zeros(1).bool()
        ranker: Ranker = self
        if query is None:
            ranker = self.ranker
            own = self.index(batch.plan) if items is None else items[batch.plan.items]
            query = ranker.queries(batch, own)
        if pool is None:
            own = self.index_catalog() if items is None else items
        else:
            own = self.index(ItemBatch(pool, ())) if items is None else items[pool]
        return score_items(ranker, query, own, empty, pool)

    @final
    @torch.no_grad()
    def select_top(
        self,
        batch: Batch,
        k: int,
        seen: Tensor,
        query: Tensor | None = None,
        pool: Tensor | None = None,
        items: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best unseen items of a single query.

        Args:
            batch: One query, as `Examples.make_serving_batch` makes it.
            k: How many; fewer come back where the items are exhausted.
            seen: Catalog rows to leave out.
            query: (1, ...) its representation, or None to make it from the batch.
            pool: Catalog rows to choose from, or None for all.
            items: (I, ...) what `index_catalog` gave, or None to ask it, or of a pool `index`.

        Returns:
            Scores and catalog rows, each (k,), best first.
        """
        scores = self.score_query(batch, query, pool, items)
        if pool is None:
            scores = scores.index_fill(1, seen.to(scores.device), -torch.inf)
        else:
            scores = mask_scores(scores, torch.isin(pool, seen.to(pool.device))[None])
        size = min(k, int((scores > -torch.inf).sum()))
        if not size:
            return scores[0, :0], torch.empty(0, dtype=torch.long, device=scores.device)
        # Equal scores go by catalog row, whoever computes them.
        values, columns = select_stably(scores, size)
        return values[0], columns[0] if pool is None else pool[columns[0]]
