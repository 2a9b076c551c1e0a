"""What the members of an ensemble say of items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches.rows import BatchRows, CandidateLists
from recsys.errors import ConfigError
from recsys.evaluation.ranking import BLOCK, score_items
from recsys.layers.fusion import (
    Normalization,
    normalize_ranks,
    normalize_scores,
    rank_scores,
)
from recsys.recommender.base import Recommender
from recsys.recommender.components import Member
from recsys.types import Batch


@dataclass(frozen=True)
class Signals:
    """Scores of items by all members, for some queries.

    Normalised over all items that were scored, and only then cut to those that are asked for.

    Attributes:
        scores: (M, Q, N) scores of what was scored: the catalog, or a list of each query.
        closed: (Q, N) bool, True for what has no part in a query's ranking; None: everything has.
        columns: (Q, C) which of the N are asked for; None: all.
        items: (Q, C) catalog rows of those, -1 for none.
        lengths: (Q,) events of the histories.
        users: (Q,) user rows.
        ranked: Holds the ranks once they were asked for: sorting is most of the work.
    """

    scores: Tensor
    closed: Tensor | None
    columns: Tensor | None
    items: Tensor
    lengths: Tensor
    users: Tensor
    ranked: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def normalize(self, kind: Normalization, k: float) -> Tensor:
        """(M, Q, C) scores on one scale."""
        if kind == "rank":
            return normalize_ranks(self.rank(), k)
        closed = None if self.closed is None else self.closed.expand_as(self.scores)
        return self._select(normalize_scores(self.scores, kind, closed))

    def rank(self) -> Tensor:
        """(M, Q, C) ranks from 1 among all that was scored."""
        if not self.ranked:
            closed = None if self.closed is None else self.closed.expand_as(self.scores)
            self.ranked.append(rank_scores(self.scores, closed))
        return self._select(self.ranked[0])

    def get_scores(self) -> Tensor:
        """(M, Q, C) scores as the members give them."""
        return self._select(self.scores)

    def _select(self, values: Tensor) -> Tensor:
        """(M, Q, N) -> (M, Q, C)."""
        if self.columns is None:
            return values
        return values.gather(2, self.columns.clamp(min=0).expand(len(values), -1, -1))

    def cut(self, items: Tensor) -> Signals:
        """Those of some items of each query, of signals of the whole catalog.

        Args:
            items: (Q, C) catalog rows, -1 for none.
        """
        return replace(self, columns=items, items=items)

    def select(self, at: Tensor) -> Signals:
        """Those of some queries, by their numbers."""
        return Signals(
            self.scores[:, at],
            None if self.closed is None else self.closed[at],
            None if self.columns is None else self.columns[at],
            self.items[at],
            self.lengths[at],
            self.users[at],
        )


class MemberScorer:
    """Asks all members for their scores; each makes its own queries.

    Args:
        members: The members.
        hides_history: Whether what a user has had is not ranked.

    Attributes:
        models: What scores, in the order of the members.
        ranks_catalog: Whether every member can score all items for many queries.
    """

    def __init__(self, members: Sequence[Member], hides_history: bool) -> None:
        self.members, self.hides_history = members, hides_history
        self.models = [cast(Recommender, member.recommender) for member in members]
        self.ranks_catalog = all(model.ranks_catalog for model in self.models)
        # What a member's own tests were scored by, as by several copies of a history.
        self.rankers = [model.ranker for model in self.models]
        self._catalogs: list[Tensor] = []

    def score_catalog(self, batch: Batch) -> Iterator[tuple[Tensor, Signals]]:
        """Scores of all items, for some queries at a time.

        Args:
            batch: Cases by their numbers, or queries of which nothing but a history is known.

        Yields:
            Numbers of the queries, and what all members say.

        Raises:
            ConfigError: A member can score pairs only.
        """
        asked = [self._make_batch(member, batch) for member in self.members]
        queries = [
            model.queries(own, catalog[own.plan.items])
            for model, own, catalog in zip(self.rankers, asked, self._index_catalogs(), strict=True)
        ]
        items = self.members[0].examples.items
        every = torch.arange(items, device=batch.query.device)
        rows = max(1, BLOCK // (items * len(self.members)))
        for at in torch.split(torch.arange(len(batch.query)), rows):
            place = at.to(batch.query.device)
            scores = torch.stack(
                [
                    score_items(model, own[place], catalog, _find_empty(of)[at])
                    for model, own, catalog, of in zip(
                        self.rankers, queries, self._catalogs, asked, strict=True
                    )
                ]
            )
            closed = self._mask_history(batch, place, items) if self.hides_history else None
            yield place, _make_signals(batch, place, scores, closed, every.expand(len(at), -1))

    def score_lists(self, batch: Batch) -> Signals:
        """Scores of the candidates of each query, and of nothing else."""
        lists, rows = _make_lists(batch), get_candidate_rows(batch)
        scores = []
        for member, model, catalog in zip(
            self.members, self.rankers, self._index_catalogs(), strict=True
        ):
            own = _make_case_batch(member, member.examples.make_list_rows(lists))
            empty = _find_empty(own).to(rows.device)
            own = own.to(rows.device)
            given = model.score_candidates(own, catalog[own.plan.items]).float()
            if model.needs_history and bool(empty.any()):
                popularity = model.get_popularity()[rows.clamp(min=0)]
                given = torch.where(empty[:, None], popularity, given)
            # A place without a candidate has a number, though nobody asks for it.
            scores.append(given.masked_fill(rows < 0, 0.0))
        every = torch.arange(len(rows), device=rows.device)
        return _make_signals(batch, every, torch.stack(scores), rows < 0, rows)

    def _index_catalogs(self) -> list[Tensor]:
        """Each member's representations of all items; members do not change any more."""
        device = self.models[0].device
        if not self._catalogs or self._catalogs[0].device != device:
            self._catalogs = [ranker.index_catalog() for ranker in self.rankers]
        return self._catalogs

    def _make_batch(self, member: Member, batch: Batch) -> Batch:
        """The same queries as the member reads them.

        Raises:
            ConfigError: It reads each pair of user and item, and the whole catalog is asked for.
        """
        if not cast(Recommender, member.recommender).ranks_catalog:
            raise ConfigError(
                f"architecture.members: {member.folder} reads user and item together and ranks "
                "lists only; ask an ensemble without it for items of the whole catalog."
            )
        host = batch.at_host
        if bool((host.case >= 0).any()):  # fillers among cases are never counted
            rows = member.examples.make_case_rows(host.case.clamp(min=0).numpy())
            own = _make_case_batch(member, rows)
        else:
            asked, rows_of = host.query.tolist(), host.plan.rows
            histories = [rows_of[host.history[row, :prefix]].numpy() for row, prefix in asked]
            own = member.examples.make_serving_batch_of(
                histories, [int(host.users[row]) for row, _ in asked]
            )
        return own.to(batch.query.device)

    def _mask_history(self, batch: Batch, at: Tensor, items: int) -> Tensor:
        """(Q, I) what users have had, of consecutive queries: all in evaluation, else what is read.

        Nothing of it is ranked at last.
        """
        closed = torch.zeros(len(at), items, dtype=torch.bool, device=at.device)
        row, prefix = batch.query[at].unbind(1)
        history = batch.history[row]
        place = torch.arange(history.shape[1], device=at.device)
        query, column = ((place < prefix[:, None]) & (history >= 0)).nonzero(as_tuple=True)
        closed[query, batch.plan.items[history[query, column]]] = True
        seen = select_pairs(batch.seen, at)
        closed[seen[:, 0], seen[:, 1]] = True
        return closed


def select_pairs(pairs: Tensor, at: Tensor) -> Tensor:
    """Of pairs (S, 2) of query and item, those of consecutive queries, counted from the first.

    Args:
        pairs: Of all queries.
        at: (Q,) numbers of some.
    """
    pairs = pairs[(pairs[:, 0] >= at[0]) & (pairs[:, 0] <= at[-1])]
    return torch.stack([pairs[:, 0] - at[0], pairs[:, 1]], dim=1)


def get_candidate_rows(batch: Batch) -> Tensor:
    """(Q, C) catalog rows of the candidates, -1 for none."""
    if not len(batch.plan.items):
        return torch.full_like(batch.candidates, -1)
    rows = batch.plan.items[batch.candidates.clamp(min=0)]
    return torch.where(batch.candidates >= 0, rows, -1)


def _make_signals(
    batch: Batch, at: Tensor, scores: Tensor, closed: Tensor | None, items: Tensor
) -> Signals:
    """What members say of some queries of a batch."""
    query = batch.query[at]
    return Signals(scores, closed, None, items, query[:, 1], batch.users[query[:, 0]])


def _find_empty(batch: Batch) -> Tensor:
    """(Q,) on the host: queries without a history."""
    return batch.at_host.query[:, 1] == 0


def _make_case_batch(member: Member, rows: BatchRows) -> Batch:
    """A member's batch; it encodes no item anew, so that nobody asks how long their texts are."""
    return member.examples.make_batch(rows, np.zeros(member.examples.items, dtype=np.int64))


def _make_lists(batch: Batch) -> CandidateLists:
    """What is ranked for each case of a batch, by catalog rows."""
    host = batch.at_host
    return CandidateLists(
        host.case.clamp(min=0).numpy(),
        get_candidate_rows(host).numpy(),
        host.labels.float().numpy(),
        np.zeros(len(host.case), dtype=np.bool_),
    )
