"""Makes vectors and scores with a run's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recsys.trained.queries import Query
from recsys.trained.recommendations import Suggester
from recsys.trained.vectors.arrays import TokenVectors, Vectors
from recsys.types import Ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Representer:
    """Vectors of items, users and texts, and scores of pairs.

    Args:
        suggester: Whose.
    """

    def __init__(self, suggester: Suggester) -> None:
        self._suggester = suggester

    @torch.no_grad()
    def list_items(self) -> Vectors:
        """Ids (I,) and vectors (I, D) of all items.

        Raises:
            ConfigError: The model has none.
        """
        ids = self._suggester.list_items().to_list()
        vectors = self._suggester.model.recommender.select_item_vectors(self._suggester.catalog)
        return Vectors(ids, _to_array(vectors))

    @torch.no_grad()
    def encode_users(
        self, queries: Sequence[Query], at: str, context: Mapping[str, str]
    ) -> Vectors:
        """Labels (N,) and vectors (N, D) of users or histories.

        Raises:
            ConfigError: The model has none.
            DataError: An id is unknown.
        """
        width = self._get_width(queries)
        recommender, catalog = self._suggester.model.recommender, self._suggester.catalog
        recommender.eval()
        out = np.zeros((len(queries), width), dtype=np.float32)
        for row, query in enumerate(queries):
            read = self._suggester.read_query(query, at, context)
            if recommender.needs_history and not len(read.batch.plan.items):
                continue
            own = recommender.ranker.queries(read.batch, catalog[read.batch.plan.items])
            # Masked copies of a history are a dimension of their own, before the last one.
            out[row] = _to_array(own).reshape(-1, width).mean(0)
        return Vectors([query.label for query in queries], out)

    @torch.no_grad()
    def encode_texts(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """(N, D) what texts ask for.

        Raises:
            ConfigError: The model has no such vectors, or reads no texts.
        """
        out = np.zeros((len(queries), self._get_width(queries)), dtype=np.float32)
        for row, query in enumerate(queries):
            asked = self._suggester.read_query(query, "now", {}).asked
            assert asked is not None, "it is a text"
            out[row] = _to_array(asked)[0]
        return out

    @torch.no_grad()
    def encode_item_tokens(self, items: Sequence[str]) -> TokenVectors:
        """Token vectors of items as candidates.

        Raises:
            ConfigError: The model has none.
            DataError: An id is unknown.
        """
        recommender = self._suggester.model.recommender.eval()
        rows = self._suggester.find_items(items)
        unique, back = torch.unique(rows, return_inverse=True)
        parts = recommender.encode_item_tokens(unique).split()
        return _join_tokens(items, [parts[place] for place in back.tolist()])

    @torch.no_grad()
    def encode_text_tokens(self, queries: Sequence[Query]) -> TokenVectors:
        """Token vectors of texts that ask.

        Raises:
            ConfigError: The model has none.
        """
        made = self._suggester.model
        recommender, parts = made.recommender.eval(), []
        for query in queries:
            ids = [] if made.tokenize is None else made.tokenize([str(query.text)])[0]
            tokens = Ragged(torch.tensor(ids, dtype=torch.long), (len(ids),))
            parts.append(recommender.encode_text_tokens(tokens).values)
        return _join_tokens([str(query.text) for query in queries], parts)

    @torch.no_grad()
    def score_pairs(
        self,
        queries: Sequence[Query],
        items: Sequence[str],
        at: str,
        context: Mapping[str, str],
    ) -> NDArray[np.float32]:
        """(N,) scores of queries with an item each; what one query has is scored together.

        Raises:
            ConfigError: The model reads no texts, or knows nothing of a context.
            DataError: An id is unknown.
        """
        suggester = self._suggester
        recommender = suggester.open_for([*queries, Query(history=tuple(items))]).recommender
        rows, out = suggester.find_items(items), np.zeros(len(items), dtype=np.float32)
        places: dict[Query, list[int]] = {}
        for place, query in enumerate(queries):
            places.setdefault(query, []).append(place)
        for query, own in places.items():
            read = suggester.read_query(query, at, context)
            if suggester.reads_pairs:
                scores = recommender.score_query(read.batch, read.asked, rows[own])[0]
            else:  # the same product as that of a list, to the last bit
                every = recommender.score_query(read.batch, read.asked, items=suggester.catalog)[0]
                scores = every[rows[own].to(every.device)]
            out[own] = _to_array(scores)
        return out

    def _get_width(self, queries: Sequence[Query]) -> int:
        """D, once the queries' ids are known to be there.

        Raises:
            ConfigError: The model has no vectors.
        """
        recommender = self._suggester.open_for(queries).recommender
        return recommender.select_item_vectors(self._suggester.catalog[:1]).shape[1]


def _to_array(values: Tensor) -> NDArray[np.float32]:
    out: NDArray[np.float32] = values.detach().float().cpu().contiguous().numpy()
    return out


def _join_tokens(ids: Sequence[str], parts: Sequence[Tensor]) -> TokenVectors:
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    values = _to_array(torch.cat([*parts])) if parts else np.zeros((0, 0), dtype=np.float32)
    return TokenVectors(list(ids), offsets, values)
