"""The values of all methods case by case, and the contrasts between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.compare.measures.case_values import make_clusters, stack_per_case
from recsys.compare.methods import Method
from recsys.compare.outcome import ComparisonSettings, SliceRow
from recsys.compare.statistics.contrasts import (
    Contrast,
    MeanEstimate,
    compute_contrast,
    estimate_mean,
    pool_seed_degrees,
    pool_seed_variance,
)

Mask = NDArray[np.bool_]

DRAWS = 2000
PART_DRAWS = 500
MOST_DRAWS = 20_000
LEAST_BEYOND = 10
"""Draws beyond the smallest p that Holm asks for, below which a note says so."""
LEAST_USERS = 20
"""Below it a part of the cases has means only: an interval of so few says nothing."""


def count_draws(least: int, alpha: float, contrasts: int) -> int:
    """How often users are drawn, so that 40 draws lie beyond the smallest p that Holm asks for.

    Args:
        least: Where alpha is large and contrasts are few.
        alpha: Error rate of the family.
        contrasts: How many it has.

    Returns:
        At most `MOST_DRAWS`.
    """
    return min(max(least, math.ceil(40 * max(contrasts, 1) / alpha)), MOST_DRAWS)


class PairedStatistics:
    """The values of all methods case by case, and the contrasts between them.

    Args:
        found: The methods.
        question: What is asked.
    """

    def __init__(self, found: Sequence[Method], question: ComparisonSettings) -> None:
        self.level = question.level
        self.alpha = question.alpha
        self.contrasts = max(len(found) - 1, 1)
        self.margin = None if question.margin is None else question.margin / 100
        values = {method.label: stack_per_case(method, question.metric) for method in found}
        self.runs = {label: len(rows) for label, rows in values.items()}
        self.trained = [method.label for method in found if method.trains]
        # Another seed gives the same to what does not train: two equal rows say that its spread is
        # known to be zero, where one row would say that it is unknown.
        self.values = {
            label: np.repeat(rows, 2, axis=0)
            if len(rows) == 1 and label not in self.trained
            else rows
            for label, rows in values.items()
        }
        self.clusters = make_clusters(found[0].runs[0])

    def estimate_mean(self, label: str, mask: Mask | None = None) -> MeanEstimate:
        """Mean of a method with its interval, over all cases or some."""
        at = np.ones(len(self.clusters), dtype=np.bool_) if mask is None else mask
        return estimate_mean(
            self.values[label][:, at],
            self.clusters[at],
            level=self.level,
            draws=self._choose_draws(mask),
        )

    def compute_contrast(self, label: str, baseline: str, mask: Mask | None = None) -> Contrast:
        """A method minus the baseline, over all cases or some.

        A method with one run borrows the spread over seeds of the others, in the same cases.
        """
        at = np.ones(len(self.clusters), dtype=np.bool_) if mask is None else mask
        a, b = self.values[label][:, at], self.values[baseline][:, at]
        lonely = 1 in (len(a), len(b))
        lenders = [self.values[name][:, at] for name in self.trained] if lonely else []
        found = compute_contrast(
            a,
            b,
            self.clusters[at],
            margin=self.margin,
            seed_variance=pool_seed_variance(lenders),
            seed_degrees=pool_seed_degrees(lenders),
            level=self.level,
            size=self.alpha / self.contrasts if mask is None else None,
            draws=self._choose_draws(mask),
        )
        return replace(found, seeds=(self.runs[label], self.runs[baseline]))

    def make_slice_row(self, label: str, baseline: str, mask: Mask) -> SliceRow | None:
        """A method in some of the cases; None where the metric is defined in none of them."""
        at = mask & self._find_defined(label)
        if not at.any():
            return None
        mean = float(self.values[label][:, at].mean())
        both = at & self._find_defined(baseline)
        if len(np.unique(self.clusters[both])) < LEAST_USERS:
            return SliceRow(label, mean, None, None)
        found = None if label == baseline else self.compute_contrast(label, baseline, mask)
        return SliceRow(label, mean, self.estimate_mean(label, mask), found)

    def _find_defined(self, label: str) -> Mask:
        """(N,) cases in which the metric is defined in every run of a method."""
        return np.asarray(~np.isnan(self.values[label]).any(0), dtype=np.bool_)

    def _choose_draws(self, mask: Mask | None) -> int:
        """How often users are drawn; in slices, which only are to look at, less often."""
        if mask is None:
            return count_draws(DRAWS, self.alpha, self.contrasts)
        return min(max(PART_DRAWS, math.ceil(10 / self.alpha)), MOST_DRAWS)
