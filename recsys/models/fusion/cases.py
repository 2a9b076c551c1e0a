"""Validation cases with what all members say of them, and what an order of them is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from recsys.data.splits.availability import AvailabilityWindows
from recsys.layers.fusion import Normalization
from recsys.metrics.functional import compute_from_counts, compute_from_lists
from recsys.metrics.names import BALANCED, FEWEST
from recsys.models.fusion.signals import (
    MemberScorer,
    Signals,
    get_candidate_rows,
    select_pairs,
)
from recsys.types import Batch

FOLDS = 5
"""Parts of the users: what is fitted on four is measured on the fifth."""


def assign_folds(users: Tensor) -> Tensor:
    """(Q,) the fold of each user row, by the row alone: the same in every batch."""
    # Fibonacci hashing: neighbouring rows may be alike, as data is often sorted by something.
    return (users * 2654435769 % 2**32) * FOLDS // 2**32


@dataclass(frozen=True)
class ScoredCases:
    """Cases with some candidates each, at least all that could come first.

    Attributes:
        normalized: (N, C, M) scores on one scale, by kind.
        ranks: (N, C, M) ranks among all that was scored.
        items: (N, C) catalog rows, -1 for none.
        labels: (N, C) 1 for a positive, else 0.
        reachable: (N,) whether a positive is ranked at all.
        cold: (N,) whether the case counts as cold.
        lengths: (N,) events of the histories.
        users: (N,) user rows.
        cases: (N,) numbers of the cases.
        missed: (N,) whether the list of the case lacks its target, which counts as a miss.
    """

    normalized: dict[Normalization, Tensor]
    ranks: Tensor
    items: Tensor
    labels: Tensor
    reachable: Tensor
    cold: Tensor
    lengths: Tensor
    users: Tensor
    cases: Tensor
    missed: Tensor

    def __len__(self) -> int:
        return len(self.items)

    @property
    def valid(self) -> Tensor:
        """(N, C) which places hold a candidate."""
        return self.items >= 0

    @property
    def folds(self) -> Tensor:
        """(N,) the fold of each case."""
        return assign_folds(self.users)

    def select(self, at: Tensor) -> ScoredCases:
        """Some of them, by their numbers or a mask."""
        rest = {f.name: getattr(self, f.name)[at] for f in fields(self) if f.name != "normalized"}
        return ScoredCases({k: v[at] for k, v in self.normalized.items()}, **rest)


@dataclass(frozen=True)
class CaseCollector:
    """Takes from batches of cases what a fit needs.

    Attributes:
        scorer: Asks the members.
        kinds: Scales on which scores are wanted.
        k: Of the scale `rank`.
        top: How many of each member's best items are candidates, of a whole catalog.
        counts: (I,) how often training shows each item; 0 makes it cold.
        whole: Whether the catalog is ranked, and not lists.
        windows: When items can be had; None: always.
    """

    scorer: MemberScorer
    kinds: Sequence[Normalization]
    k: float
    top: int
    counts: Tensor
    whole: bool
    windows: AvailabilityWindows | None

    def collect(self, batches: Iterable[Batch]) -> ScoredCases:
        """All cases, on the CPU."""
        parts = [part for batch in batches for part in self._collect_batch(batch)]
        width = max(part.items.shape[1] for part in parts)
        parts = [_pad(part, width) for part in parts]
        return ScoredCases(
            {kind: torch.cat([part.normalized[kind] for part in parts]) for kind in self.kinds},
            *(
                torch.cat([getattr(part, f.name) for part in parts])
                for f in fields(ScoredCases)
                if f.name != "normalized"
            ),
        )

    def _collect_batch(self, batch: Batch) -> Iterable[ScoredCases]:
        listed, labels = get_candidate_rows(batch), (batch.labels > 0).float()
        if not self.scorer.ranks_catalog:
            every = torch.arange(len(listed), device=listed.device)
            yield self._keep(batch, every, self.scorer.score_lists(batch), listed, labels)
            return
        for at, signals in self.scorer.score_catalog(batch):
            if not self.whole:
                yield self._keep(batch, at, signals.cut(listed[at]), listed[at], labels[at])
                continue
            target = listed[at, 0]
            items = self._propose(batch, at, signals, target)
            own = (items == target[:, None]).float()
            yield self._keep(batch, at, signals.cut(items), items, own)

    def _propose(self, batch: Batch, at: Tensor, signals: Signals, target: Tensor) -> Tensor:
        """(Q, C) the best items of any member that are ranked, and the target; -1 for none."""
        chosen = (signals.rank() <= self.top).any(0)
        if signals.closed is not None:
            chosen &= ~signals.closed
        if batch.basket_items is not None:
            query, item = select_pairs(batch.basket_items, at).unbind(1)
            chosen[query, item] = False
        if self.windows is not None:
            case = batch.at_host.case[at.cpu()].numpy()
            chosen &= ~self.windows.make_mask(case, chosen.device)
        chosen.scatter_(1, target[:, None], True)
        return list_chosen(chosen)

    def _keep(
        self, batch: Batch, at: Tensor, signals: Signals, items: Tensor, labels: Tensor
    ) -> ScoredCases:
        """What the fit needs of some queries, without fillers."""
        counted = batch.case[at] >= 0
        positive = (labels > 0) & (items >= 0)
        never = self.counts.to(items.device) == 0
        cold = never[items.clamp(min=0)]
        target = items.new_full((len(items),), -1)
        if "missed" in batch.extras:
            target = batch.extras["missed"][batch.query[at, 0]]
        missed = target >= 0
        reachable = positive.any(1)
        if self.whole and signals.closed is not None:
            hidden = signals.closed.gather(1, items.clamp(min=0))
            reachable = (positive & ~hidden).any(1)
        made = ScoredCases(
            {kind: signals.normalize(kind, self.k).permute(1, 2, 0) for kind in self.kinds},
            signals.rank().permute(1, 2, 0),
            items,
            labels,
            reachable,
            # As the evaluator has it: a case is cold where all its positives are.
            torch.where(
                missed,
                never[target.clamp(min=0)],
                (cold | ~positive).all(1) & positive.any(1),
            ),
            signals.lengths,
            signals.users,
            batch.case[at],
            missed,
        ).select(counted)
        kept = {k: v.cpu().contiguous() for k, v in made.normalized.items()}
        rest = [getattr(made, f.name).cpu().contiguous() for f in fields(made)[1:]]
        return ScoredCases(kept, *rest)


def list_chosen(chosen: Tensor) -> Tensor:
    """(Q, N) bool -> (Q, C) columns that are True, in order, -1 behind the last."""
    query, column = chosen.nonzero(as_tuple=True)
    place = chosen.cumsum(1)[query, column] - 1
    size = max(1, int(chosen.sum(1).max()))
    out = torch.full((len(chosen), size), -1, dtype=torch.long, device=chosen.device)
    out[query, place] = column
    return out


def _pad(part: ScoredCases, width: int) -> ScoredCases:
    """The cases with places for more candidates, which hold none."""
    more = width - part.items.shape[1]

    def widen(values: Tensor, value: float = 0.0) -> Tensor:
        pad = (0, more) if values.ndim == 2 else (0, 0, 0, more)
        return torch.nn.functional.pad(values, pad, value=value)

    rest = [getattr(part, f.name) for f in fields(part)[4:]]
    return ScoredCases(
        {kind: widen(values) for kind, values in part.normalized.items()},
        widen(part.ranks),
        widen(part.items, -1),
        widen(part.labels),
        *rest,
    )


@dataclass(frozen=True)
class Judge:
    """What orders of candidates are worth, by the monitored metric.

    Attributes:
        monitor: As `balanced/ndcg@10`.
        label: What stands before the metric's name.
        ks: Cut-offs that are counted.
    """

    monitor: str
    label: str
    ks: Sequence[int]

    @property
    def metric(self) -> str:
        """The metric without the cases that it is of, and without the label."""
        return self.monitor.rpartition("/")[2].removeprefix(self.label)

    def score_cases(self, scores: Tensor, cases: ScoredCases) -> Tensor:
        """The metric of each case, under several scorings at once.

        Args:
            scores: (N, C, K) of the candidates, by K ways to score.
            cases: The cases.

        Returns:
            (N, K) float64; NaN where it is undefined, 0 where the positive cannot be reached or its
            list lacks it.
        """
        if bool((cases.labels.sum(1) == 1).all()) and self.metric != "auc":
            values = self._score_single(scores, cases)
        else:
            values = torch.stack(
                [
                    compute_from_lists(each, cases.labels, cases.valid, self.ks)[self.metric]
                    for each in scores.unbind(2)
                ],
                dim=1,
            )
        hidden = ~cases.reachable[:, None] & ~values.isnan()
        return values.masked_fill(hidden | cases.missed[:, None], 0.0)

    def _score_single(self, scores: Tensor, cases: ScoredCases) -> Tensor:
        """As `score_cases`, of lists with one positive each: by counting, without a sort."""
        size, _, ways = scores.shape
        target = cases.labels.argmax(1)[:, None, None].expand(-1, 1, ways)
        own, valid = scores.gather(1, target), cases.valid[:, :, None]
        greater = ((scores > own) & valid).sum(1)
        equal = ((scores == own) & valid).sum(1) - 1
        found = compute_from_counts(greater.flatten(), equal.flatten().clamp(min=0), self.ks)
        return found[self.metric].view(size, ways)

    def weigh_cases(self, cold: Tensor) -> Tensor:
        """(N,) float64, how much each case of a set counts in the monitored mean of the set.

        Cold and warm cases count as in `RankingMetrics`: where the monitor balances both, a side
        of fewer than `FEWEST` cases is noise and is left out. The weights are those of the whole
        set also where a fold or a bin of it is looked at, so that its parts add up to it.

        Args:
            cold: (N,) which of them are cold.
        """
        part = self.monitor.rpartition("/")[0]
        sides = [cold.double(), (~cold).double()]
        if part == BALANCED:
            shares = [side / side.sum() for side in sides if side.sum() >= FEWEST]
            return torch.stack(shares).sum(0) if shares else torch.ones_like(sides[0])
        if part:
            return sides[part != "cold"]
        return torch.ones_like(sides[0])


def compute_means(values: Tensor, weights: Tensor) -> Tensor:
    """(K,) the weighted mean of each way to score; NaN where no case counts.

    Args:
        values: (N, K) of cases, NaN where undefined.
        weights: (N,) of `Judge.weigh_cases`.
    """
    counted = weights[:, None] * ~values.isnan()
    return (values.nan_to_num() * counted).sum(0) / counted.sum(0)
