"""Chooses the items of a query: of the whole catalog, or of what others propose."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from recsys.assembly import build, protocols
from recsys.trained.diversity import count_pool, diversify
from recsys.trained.queries import ANY, Choice, Query
from recsys.types import AskedText, Batch, ItemBatch, Ragged

if TYPE_CHECKING:
    from recsys.config.compose import RunConfig
    from recsys.data.batches.catalog import Tokenize
    from recsys.data.batches.examples import Examples
    from recsys.data.context import ContextFeatures
    from recsys.data.tables import Tables
    from recsys.recommender.base import Recommender
    from recsys.recommender.components import Components


class Servable(Protocol):
    """What answers queries: an `Assembly`, or what a bundle is opened as."""

    @property
    def tables(self) -> Tables:
        """Items, and the users who can be asked for."""
        ...

    @property
    def examples(self) -> Examples:
        """What users had."""
        ...

    @property
    def recommender(self) -> Recommender:
        """The model, with all that it has learned."""
        ...

    @property
    def parts(self) -> Components:
        """What baselines over the same items are made of."""
        ...

    @property
    def tokenize(self) -> Tokenize | None:
        """Makes tokens of a text that is asked for; None where nothing reads any."""
        ...

    @property
    def context_features(self) -> ContextFeatures:
        """What may be said of a query."""
        ...


class ItemSelector:
    """Chooses the best items of a query, or some of the best that are unlike each other.

    Args:
        made: The model.
        run: Its configuration.
        catalog: Gives (I, ...) representations of all items.
    """

    def __init__(self, made: Servable, run: RunConfig, catalog: Callable[[], Tensor]) -> None:
        self._made, self._run, self._catalog = made, run, catalog

    @property
    def reads_pairs(self) -> bool:
        """Whether each item takes a joint pass with the query: minutes for a whole catalog."""
        return self._run.architecture.trains and not self._run.architecture.reads_item_vectors

    def count_candidates(self, k: int, candidates: int | None = None) -> int:
        """How many items are proposed for a list of k, where not all are scored."""
        return max(k, candidates or self._run.evaluation.candidates)

    @torch.no_grad()
    def select(
        self,
        query: Query,
        batch: Batch,
        asked: Tensor | None,
        left_out: Tensor,
        k: int,
        choice: Choice = ANY,
        pool: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores and catalog rows, each (k,), in the order of the list.

        Args:
            query: Who or what is asked for.
            batch: It, as the model reads it.
            asked: (1, ...) what a text asks for in place of a history, or None.
            left_out: Catalog rows that may not be chosen.
            k: How many; fewer come back where the items are exhausted.
            choice: How they are chosen.
            pool: Catalog rows to choose from; None: all, or what baselines propose to a model that
                reads pairs.
        """
        recommender, items = self._made.recommender, None
        size = count_pool(k) if choice.diversity else k
        if not self.reads_pairs:
            items = self._catalog()
        elif pool is None:
            proposed = self.count_candidates(k, choice.candidates)
            pool = self.propose(query, batch, left_out, proposed)
        scores, rows = recommender.select_top(batch, size, left_out, asked, pool, items)
        if not choice.diversity or not len(rows):
            return scores, rows
        cosines = self.compute_cosines(rows)
        places = torch.from_numpy(
            diversify(scores.cpu().numpy(), cosines.numpy(), k, choice.diversity)
        ).to(rows.device)
        return scores[places], rows[places]

    @torch.no_grad()
    def compute_cosines(self, rows: Tensor) -> Tensor:
        """(N, N) of catalog rows: by what the model has of each item, else by words of texts."""
        recommender = self._made.recommender
        pairs = self.reads_pairs
        own = recommender.index(ItemBatch(rows, ())) if pairs else self._catalog()[rows]
        cosines = recommender.compute_cosines(own)
        if cosines is None:
            cosines = self._baselines["tfidf"].compute_cosines(rows.cpu())
        assert cosines is not None, "tfidf has words of each item"
        return cosines

    @cached_property
    def _baselines(self) -> dict[str, Recommender]:
        """What proposes candidates, by name."""
        return {name: build.make_baseline(name, self._made.parts) for name in protocols.FLOORS}

    def propose(self, query: Query, batch: Batch, seen: Tensor, size: int) -> Tensor:
        """Catalog rows that popularity and tfidf put first, in turn, without repeats.

        Args:
            query: Who or what is asked for.
            batch: It, as the model reads it.
            seen: Catalog rows to leave out.
            size: How many.
        """
        proposals = []
        for name, maker in self._baselines.items():
            asks = name == "tfidf" and query.text is not None
            asked = encode_text(maker, self._made, batch, str(query.text)) if asks else None
            proposals.append(maker.select_top(batch, size, seen, asked)[1])
        length = min(len(rows) for rows in proposals)
        turns = torch.stack([rows[:length] for rows in proposals], dim=1).flatten().tolist()
        return torch.tensor(list(dict.fromkeys(turns))[:size])


def encode_text(recommender: Recommender, made: Servable, batch: Batch, text: str) -> Tensor:
    """What a text asks an architecture for."""
    asked = tokenize_text(made, text)
    if recommender.training:
        recommender.eval()
    with torch.no_grad():
        return recommender.make_text_query(batch, text, asked.tokens)


def tokenize_text(made: Servable, text: str) -> AskedText:
    """A text that asks, with the tokens that a model reads of it; none where it reads none."""
    ids = made.tokenize([text])[0] if made.tokenize is not None else []
    return AskedText(text, Ragged(torch.tensor(ids, dtype=torch.long), (len(ids),)))
