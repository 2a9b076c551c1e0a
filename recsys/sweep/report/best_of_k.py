"""Best-of-k curves: what a budget of k trials is expected to reach.

Dodge et al., "Show Your Work: Improved Reporting of Experimental Results" (EMNLP 2019), section 3,
with the unbiased estimate of Tang et al., "Showing Your Work Doesn't Always Work" (ACL 2020),
section 3.2: the mean over all subsets of k of the n trials, by their order statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from recsys.sweep.record import SweepRecord
from recsys.sweep.report.formatting import find_last_value, get_sign, list_ended


def list_scores(sweep: SweepRecord, method: str) -> list[float]:
    """The first objective of each trial that used budget, in the order in which they began.

    A complete trial counts with its value and a pruned one with its last report. One that failed,
    or was pruned before any report, used budget and gave nothing: it counts as the method's worst
    value. A trial that was lost and repeated does not count beside its repetition. Empty where no
    trial has a value.
    """
    found = [find_last_value(trial) for trial in list_ended(sweep, method)]
    better = get_sign(sweep.objectives[0])
    values = [value for value in found if value is not None]
    if not values:
        return []
    worst = min(values, key=lambda value: better * value)
    return [worst if value is None else value for value in found]


def compute_expected_best(values: Sequence[float], better: int = 1) -> list[float]:
    """Expected best of k of n values drawn without replacement, for k = 1 to n.

    Args:
        values: Of n trials, n at least 1.
        better: 1 where more is better, -1 where less is.

    Returns:
        n numbers: the sum over ranks i of the i-th value times C(i - 1, k - 1) / C(n, k).
    """
    ranked = sorted((better * value for value in values), reverse=True)
    n = len(ranked)
    out = []
    for k in range(1, n + 1):
        # The share of the subsets whose best has rank i; from one rank to the next below it only
        # a factor changes, so that no binomial coefficient is ever formed.
        share, shares = k / n, []
        for i in range(n, k - 1, -1):
            shares.append(share)
            share *= (i - k) / (i - 1) if i > 1 else 0.0
        out.append(better * math.fsum(v * w for v, w in zip(ranked, shares, strict=False)))
    return out


def compute_best_so_far(values: Sequence[float], better: int = 1) -> list[float]:
    """The best of the first k values, for k = 1 to n."""
    out: list[float] = []
    for value in values:
        out.append(value if not out else better * max(better * out[-1], better * value))
    return out
