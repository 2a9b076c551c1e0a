"""AUC over rows of several users: over all rows, and the mean of that of each user.

Rows of one user are no independent draws: intervals are of users that are drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DRAWS = 2_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A figure with its interval."""

    value: float
    low: float
    high: float


def compute_auc(
    scores: Floats, liked: npt.NDArray[np.bool_], weights: Floats | None = None
) -> float:
    """How often a liked row stands above another one, half where they are equal; NaN without both.

    Args:
        scores: (N,).
        liked: (N,).
        weights: (N,) how often each row counts; None: once.
    """
    _, code = np.unique(scores, return_inverse=True)
    counted = np.ones(len(scores)) if weights is None else weights
    positive = np.bincount(code, counted * liked)
    negative = np.bincount(code, counted * ~liked)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return float("nan")
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs)


@dataclass(frozen=True)
class LabelledRows:
    """Test rows.

    Attributes:
        liked: (N,) what is to be told.
        user: (N,) number of the user of each row, from 0 on.
    """

    liked: npt.NDArray[np.bool_]
    user: Ints

    @property
    def users(self) -> int:
        """How many users there are."""
        return int(self.user.max()) + 1

    def compute_by_user(self, scores: Floats) -> Floats:
        """(U,) AUC of each user's rows, NaN where all are alike."""
        return np.array(
            [compute_auc(scores[at], self.liked[at]) for at in map(self._find, range(self.users))]
        )

    def _find(self, user: int) -> npt.NDArray[np.bool_]:
        return self.user == user

    def draw(self) -> Floats:
        """(DRAWS, U) how often each user counts in each draw of users with replacement."""
        rng, size = np.random.default_rng(0), self.users
        return rng.multinomial(size, np.full(size, 1 / size), DRAWS).astype(np.float64)

    def measure(self, seeds: Sequence[Floats]) -> dict[str, Interval]:
        """Mean over seeds of `pooled` and `by user`.

        Args:
            seeds: (N,) scores of each run.
        """
        drawn = self._measure_draws(seeds)
        values = {
            "pooled": float(np.mean([compute_auc(s, self.liked) for s in seeds])),
            "by user": float(np.mean([np.nanmean(self.compute_by_user(s)) for s in seeds])),
        }
        return {name: _enclose(value, drawn[name]) for name, value in values.items()}

    def compare(self, seeds: Sequence[Floats], others: Sequence[Floats]) -> dict[str, Interval]:
        """The differences of `measure`, of the same draws of users."""
        ours, theirs = self.measure(seeds), self.measure(others)
        drawn, against = self._measure_draws(seeds), self._measure_draws(others)
        return {
            name: _enclose(ours[name].value - theirs[name].value, drawn[name] - against[name])
            for name in ours
        }

    def _measure_draws(self, seeds: Sequence[Floats]) -> dict[str, Floats]:
        """(DRAWS,) each figure in each draw of users."""
        draws = self.draw()
        pooled = np.mean(
            [[compute_auc(s, self.liked, w[self.user]) for w in draws] for s in seeds], axis=0
        )
        each = np.mean([self.compute_by_user(s) for s in seeds], axis=0)
        known = ~np.isnan(each)  # of labels alone, so the same for every seed
        counted = draws[:, known]
        by_user = counted @ each[known] / np.maximum(counted.sum(1), 1)
        return {"pooled": pooled, "by user": by_user}


def _enclose(value: float, drawn: Floats) -> Interval:
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
