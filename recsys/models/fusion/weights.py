"""Weights of normalised scores on the simplex, chosen by validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from recsys.layers.fusion import Normalization, list_simplex_points
from recsys.models.fusion.cases import FOLDS, Judge, ScoredCases, compute_means
from recsys.models.fusion.signals import Signals

By = Literal["cold", "history"]
"""What weights may depend on: whether an item is cold, how long the history of a query is."""

BINS = (0, 1, 5, 10, 20, 50)
"""Fewest events of each bin of history lengths."""
LEAST = 50
"""Validation cases, or cold ones, that weights of their own need."""
POINTS, COLD_POINTS = 500, 120
"""How many weights are tried at most, and of cold items."""
_HELD = 1 << 24
"""Scores held at a time."""


@dataclass(frozen=True)
class ScoreWeights:
    """Weighs normalised scores.

    Attributes:
        kind: The scale.
        k: Of the scale `rank`.
        weights: (B, M) by bin of history lengths; one row: for all.
        cold: (M,) for cold items; None: as for others.
        counts: (I,) how often training shows each item.
    """

    kind: Normalization
    k: float
    weights: Tensor
    cold: Tensor | None
    counts: Tensor

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) weighted scores."""
        scores = signals.normalize(self.kind, self.k)
        own = self.weights.to(scores.device)[_bin_lengths(signals.lengths, len(self.weights))]
        fused = torch.einsum("mqc,qm->qc", scores, own)
        if self.cold is None:
            return fused
        apart = torch.einsum("mqc,m->qc", scores, self.cold.to(scores.device))
        return torch.where(_find_cold(self.counts, signals.items), apart, fused)

    def combine_cases(self, cases: ScoredCases) -> Tensor:
        """(N, C) weighted scores of collected cases."""
        scores = cases.normalized[self.kind]
        own = self.weights[_bin_lengths(cases.lengths, len(self.weights))]
        fused = torch.einsum("ncm,nm->nc", scores, own)
        if self.cold is None:
            return fused
        return torch.where(_find_cold(self.counts, cases.items), scores @ self.cold, fused)

    def summarize(self, names: Sequence[str]) -> dict[str, Any]:
        """The weights by member, for a reader.

        Args:
            names: Of the members.
        """

        def name_weights(row: Tensor) -> dict[str, float]:
            return {n: round(w, 4) for n, w in zip(names, row.tolist(), strict=True)}

        bins = ["all"] if len(self.weights) == 1 else _name_bins()
        out = {name: name_weights(row) for name, row in zip(bins, self.weights, strict=True)}
        return out if self.cold is None else {**out, "cold items": name_weights(self.cold)}

    def make_state(self) -> dict[str, Any]:
        """What `restore` makes it of again."""
        cold = None if self.cold is None else self.cold.tolist()
        return {"normalize": self.kind, "weights": self.weights.tolist(), "cold": cold}

    @classmethod
    def restore(cls, state: Mapping[str, Any], k: float, counts: Tensor) -> ScoreWeights:
        """As `make_state` left it."""
        cold = None if state["cold"] is None else torch.tensor(state["cold"])
        return cls(state["normalize"], k, torch.tensor(state["weights"]), cold, counts)


@dataclass(frozen=True)
class WeightSearch:
    """Finds weights on a lattice; deterministic.

    What each point of the lattice is worth for each case is computed once: weights of any part of
    the cases, as of a fold or of a bin, are then the best mean over that part.

    Attributes:
        cases: Validation cases.
        judge: What they are worth.
        k: Of the scale `rank`.
        counts: (I,) how often training shows each item.
    """

    cases: ScoredCases
    judge: Judge
    k: float
    counts: Tensor

    def find(self, kind: Normalization, by: Sequence[By]) -> CrossFitted:
        """Weights of all cases, and of each fold those that the other folds choose.

        Args:
            kind: The scale.
            by: What they may depend on.
        """
        points = list_simplex_points(self.cases.ranks.shape[2], POINTS)
        values = self._try_points(kind, points, None)
        every = torch.ones(len(self.cases), dtype=torch.bool)
        folds = self.cases.folds
        parts = [every, *(folds != fold for fold in range(FOLDS))]
        whole, *apart = (self._fit(kind, by, points, values, part) for part in parts)
        return CrossFitted(whole, tuple(apart))

    def _fit(
        self, kind: Normalization, by: Sequence[By], points: Tensor, values: Tensor, part: Tensor
    ) -> ScoreWeights:
        """The best weights of a part of the cases."""
        split = "history" in by
        made = ScoreWeights(
            kind, self.k, self._choose(points, values, part, split), None, self.counts
        )
        if "cold" not in by:
            return made
        # By turns: what cold items need decides what is left for others to do, and the other way.
        few = list_simplex_points(points.shape[1], COLD_POINTS)
        for _ in range(2):
            cold_values = self._try_points(kind, few, made, cold=True, part=part)
            apart = _choose_point(few, self._mean(cold_values, part), made.weights.mean(0))
            made = ScoreWeights(kind, self.k, made.weights, apart, self.counts)
            warm_values = self._try_points(kind, points, made, part=part)
            weights = self._choose(points, warm_values, part, split)
            made = ScoreWeights(kind, self.k, weights, apart, self.counts)
        return made

    @cached_property
    def _weights(self) -> Tensor:
        """(N,) how much each case counts."""
        return self.judge.weigh_cases(self.cases.cold)

    def _mean(self, values: Tensor, part: Tensor) -> Tensor:
        """(K,) of a part of the cases."""
        return compute_means(values[part], self._weights[part])

    def _choose(self, points: Tensor, values: Tensor, part: Tensor, split: bool) -> Tensor:
        """(B, M) the best points of a part of the cases: one, or one a bin that has enough."""
        equal = torch.full(points.shape[1:], 1 / points.shape[1])
        best = _choose_point(points, self._mean(values, part), equal)
        if not split:
            return best[None]
        bins, out = _bin_lengths(self.cases.lengths, len(BINS)), []
        for number in range(len(BINS)):
            own = part & (bins == number)
            enough = int(own.sum()) >= LEAST
            out.append(_choose_point(points, self._mean(values, own), best) if enough else best)
        return torch.stack(out)

    def _try_points(
        self,
        kind: Normalization,
        points: Tensor,
        beside: ScoreWeights | None,
        cold: bool = False,
        part: Tensor | None = None,
    ) -> Tensor:
        """(N, K) what each point is worth for each case.

        Args:
            kind: The scale.
            points: (K, M) weights.
            beside: What weighs the items that the points do not; None: they weigh all items.
            cold: Whether the points weigh the cold ones of them, or the others.
            part: (N,) cases to look at; the rest has NaN.
        """
        cases = self.cases
        out = torch.full((len(cases), len(points)), torch.nan, dtype=torch.float64)
        at = torch.arange(len(cases)) if part is None else part.nonzero()[:, 0]
        for rows in torch.split(at, max(1, _HELD // (cases.items.shape[1] * len(points)))):
            some = cases.select(rows)
            scores = some.normalized[kind] @ points.T
            if beside is not None:
                fixed = _find_cold(self.counts, some.items) != cold
                other = _weigh_beside(beside, some, cold)
                scores = torch.where(fixed[:, :, None], other[:, :, None], scores)
            out[rows] = self.judge.score_cases(scores, some)
        return out


@dataclass(frozen=True)
class CrossFitted:
    """What all validation cases choose, and for each fold what the others choose.

    Attributes:
        whole: For queries of the test, and of anyone.
        folds: By fold.
    """

    whole: ScoreWeights
    folds: tuple[ScoreWeights, ...]

    def measure(self, cases: ScoredCases, judge: Judge) -> float:
        """The monitored metric of cases that had no part in the weights they are measured by."""
        values = torch.full((len(cases), 1), torch.nan, dtype=torch.float64)
        for fold, made in enumerate(self.folds):
            own = cases.folds == fold
            if bool(own.any()):
                some = cases.select(own)
                values[own] = judge.score_cases(made.combine_cases(some)[:, :, None], some)
        return float(compute_means(values, judge.weigh_cases(cases.cold)))


def _weigh_beside(made: ScoreWeights, cases: ScoredCases, cold: bool) -> Tensor:
    """(N, C) scores of the items that keep their weights: the others, or the cold ones."""
    if cold or made.cold is None:
        own = made.weights[_bin_lengths(cases.lengths, len(made.weights))]
        return torch.einsum("ncm,nm->nc", cases.normalized[made.kind], own)
    return cases.normalized[made.kind] @ made.cold


def _choose_point(points: Tensor, means: Tensor, near: Tensor) -> Tensor:
    """(M,) the point of the highest mean; of equals, the nearest to another point."""
    means = means.nan_to_num(nan=-1.0)
    best = means >= means.max() - 1e-12
    distance = (points - near).square().sum(1).masked_fill(~best, torch.inf)
    return points[distance.argmin()]


def _bin_lengths(lengths: Tensor, bins: int) -> Tensor:
    """(Q,) the bin of each history length; 0 where there is one bin."""
    if bins == 1:
        return torch.zeros_like(lengths)
    starts = torch.tensor(BINS, device=lengths.device)
    return torch.bucketize(lengths, starts, right=True) - 1


def _name_bins() -> list[str]:
    """What the bins of history lengths are called."""
    names = []
    for first, after in zip(BINS, [*BINS[1:], None], strict=True):
        if after is None:
            names.append(f"history {first}+")
        else:
            names.append(
                f"history {first}" if after == first + 1 else f"history {first}-{after - 1}"
            )
    return names


def _find_cold(counts: Tensor, items: Tensor) -> Tensor:
    """(...) bool: which catalog rows training has not seen; -1 has no say."""
    return counts.to(items.device)[items.clamp(min=0)] == 0
