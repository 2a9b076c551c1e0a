"""Which users a method serves better or worse than the baseline, with examples to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys.compare.measures import examples
from recsys.compare.methods import Method

Array = NDArray[np.float64]

EXAMPLES = 5
"""Shown of each side."""
NOTHING = 1e-12
"""Differences below this are of rounding."""


@dataclass(frozen=True)
class ExampleCase:
    """One case.

    Attributes:
        user: The user's own id.
        target: The item's own id.
        rank: Of the target with the method, mean over its runs; equals share their ranks.
        base_rank: The same with the baseline.
        gain: Metric with the method minus with the baseline, means over runs, as a share.
        case: Its number.
        title: The first words of the target's text, or empty.
        history: The user's last liked items before it, latest first: own id and first words.
    """

    user: str
    target: str
    rank: float
    base_rank: float
    gain: float
    case: int
    title: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class UserComparison:
    """A method against the baseline, user by user; a user's value is the mean over its cases.

    Attributes:
        label: The method.
        better: Users that it serves better.
        worse: Users that it serves worse.
        equal: Users for whom both are the same.
        gains: The largest wins among the cases.
        losses: The largest losses among the cases.
        note: Why examples have no titles, or empty.
    """

    label: str
    better: int
    worse: int
    equal: int
    gains: list[ExampleCase]
    losses: list[ExampleCase]
    note: str = ""


def compare_users(
    found: Sequence[Method],
    base: Method,
    values: Mapping[str, Array],
    clusters: NDArray[np.int64],
) -> list[UserComparison]:
    """Every method but the baseline.

    Args:
        found: The methods.
        base: The baseline.
        values: (S, N) values of the metric by method.
        clusters: (N,) the user of each case.
    """
    plain = [
        _compare_method(
            method, base, values[method.label].mean(0) - values[base.label].mean(0), clusters
        )
        for method in found
        if method is not base
    ]
    targets = {e.case: e.target for side in plain for e in (*side.gains, *side.losses)}
    told, note = examples.read_case_texts(base.runs[0], targets)

    def add_titles(examples: list[ExampleCase]) -> list[ExampleCase]:
        return [
            replace(each, title=told[each.case].target, history=told[each.case].history)
            if each.case in told
            else each
            for each in examples
        ]

    return [
        replace(side, gains=add_titles(side.gains), losses=add_titles(side.losses), note=note)
        for side in plain
    ]


def _compare_method(
    method: Method, base: Method, gain: Array, clusters: NDArray[np.int64]
) -> UserComparison:
    defined = ~np.isnan(gain)
    sums = np.bincount(clusters[defined], gain[defined])
    counts = np.bincount(clusters[defined])
    users = sums[counts > 0] / counts[counts > 0]
    ranks, base_ranks = compute_mean_ranks(method), compute_mean_ranks(base)
    frame = base.runs[0].cases

    def select_examples(order: Array) -> list[ExampleCase]:
        """The first in an order, as long as they say something; equals by the change in rank."""
        change = -np.abs(np.log(ranks / base_ranks))
        places = [at for at in np.lexsort((change, order)) if order[at] < -NOTHING]
        return [
            ExampleCase(
                str(frame["user"][int(at)]),
                str(frame["target"][int(at)]),
                float(ranks[at]),
                float(base_ranks[at]),
                float(gain[at]),
                int(frame["case"][int(at)]),
            )
            for at in places[:EXAMPLES]
        ]

    known = np.where(defined, gain, 0.0)
    return UserComparison(
        method.label,
        better=int((users > NOTHING).sum()),
        worse=int((users < -NOTHING).sum()),
        equal=int((np.abs(users) <= NOTHING).sum()),
        gains=select_examples(-known),
        losses=select_examples(known),
    )


def compute_mean_ranks(method: Method) -> Array:
    """(N,) rank of the target, mean over runs; among equals the mean of their ranks.

    Of a case with several positives it is the rank of the first one.
    """
    ranks: Array = np.mean(
        [run.cases["rank"].to_numpy() + run.cases["ties"].to_numpy() / 2 for run in method.runs],
        axis=0,
    )
    return ranks
