"""A choice among alternatives by validation cases: what was tried, and the best of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from recsys.errors import DataError
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.ranking import Ranker
from recsys.metrics.names import BALANCED, FEWEST, describe_balance
from recsys.recommender.base import Recommender
from recsys.recommender.fitted import Fit
from recsys.runtime.progress import track
from recsys.types import Batch


class Rescored:
    """A recommender that ranks by another score of its queries and items.

    Args:
        recommender: The recommender.
        score: Its score, as `Recommender.score`.
    """

    def __init__(self, recommender: Recommender, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._recommender, self.score = recommender, score
        self.needs_history = recommender.needs_history
        self.get_popularity = recommender.get_popularity
        self.index_catalog = recommender.index_catalog
        self.select_directions = recommender.select_directions
        self.queries = recommender.queries

    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) scores of the candidates, from the representations of the plan's items."""
        scores = self.score(self.queries(batch, items), items)
        return scores.gather(1, batch.candidates.clamp(min=0))


@dataclass(frozen=True)
class Trial:
    """An alternative and how it ranked the validation cases.

    Attributes:
        settings: Its options by name.
        metrics: As `Evaluator.end` gives them.
    """

    settings: Mapping[str, float]
    metrics: Mapping[str, float]


def measure_alternatives(
    alternatives: Sequence[tuple[Mapping[str, float], Ranker]],
    make_evaluator: Callable[[], Evaluator],
    batches: Iterable[Batch],
    report: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Ranks validation cases by each alternative, as the result of a run ranks its test cases.

    All alternatives rank a batch before the next one is made, so that what they share of it need
    be computed only once.

    Args:
        alternatives: Settings of each, and what ranks by them.
        make_evaluator: `Recommender.make_evaluator`.
        batches: The validation cases, on the device of the rankers.
        report: Called when a batch is done.
    """
    evaluators = [make_evaluator() for _ in alternatives]
    for evaluator, (_, ranker) in zip(evaluators, alternatives, strict=True):
        evaluator.start(ranker)
    for batch in batches:
        for evaluator, (_, ranker) in zip(evaluators, alternatives, strict=True):
            evaluator.step(ranker, batch)
        report()
    return [
        Trial(settings, evaluator.end())
        for evaluator, (settings, _) in zip(evaluators, alternatives, strict=True)
    ]


def measure_and_choose(
    recommender: Recommender,
    alternatives: Sequence[tuple[Mapping[str, float], Ranker]],
    batches: Iterable[Batch],
    monitor: str,
) -> Fit:
    """The best of some alternatives of a recommender; how far it is, is shown.

    Args:
        recommender: Whose evaluator ranks.
        alternatives: As in `measure_alternatives`.
        batches: The validation cases.
        monitor: As in `choose_best`.

    Raises:
        DataError: As in `choose_best`.
    """
    cases = list(batches)
    with track("choosing", len(cases), "batches") as task:
        trials = measure_alternatives(alternatives, recommender.make_evaluator, cases, task.advance)
    return choose_best(trials, monitor)


def choose_best(trials: Sequence[Trial], monitor: str, open_ended: Collection[str] = ()) -> Fit:
    """The alternative with the highest metric; of equal ones the first.

    Args:
        trials: What was tried, at least one.
        monitor: The metric, such as `balanced/ndcg@10`.
        open_ended: Settings for which a number beyond those that were tried may be better, where
            the best one is the largest or the smallest of them.

    Returns:
        Chosen settings, a row a trial, the metrics of the best, sentences on the choice; the
        chosen settings are its state as well.

    Raises:
        DataError: The metric has no value: there is no such validation case.
    """
    best = max(trials, key=lambda trial: _as_order(trial.metrics[monitor]))
    value = best.metrics[monitor]
    if math.isnan(value):
        raise DataError(
            f"evaluation.monitor={monitor} has no value: validation has "
            f"{best.metrics['cases']:.0f} cases, {best.metrics['cold/cases']:.0f} of them cold; "
            "name another metric, or fix what it is to choose."
        )
    metric = monitor.rpartition("/")[2]
    shown = dict.fromkeys((monitor, metric, f"warm/{metric}", f"cold/{metric}"))
    return Fit(
        chosen=dict(best.settings),
        tried=[{**trial.settings, **{n: trial.metrics[n] for n in shown}} for trial in trials],
        validation=best.metrics,
        notes=[
            _describe_choice(trials, best, monitor),
            *_describe_cold(best.metrics, monitor),
            *_describe_edges(trials, best, open_ended),
        ],
        state=dict(best.settings),
    )


def _as_order(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _describe_choice(trials: Sequence[Trial], best: Trial, monitor: str) -> str:
    """What was taken, of how many, and by what."""
    settings = ", ".join(f"{name}={value:g}" for name, value in best.settings.items())
    return (
        f"chosen on validation: {settings}; {monitor} {100 * best.metrics[monitor]:.2f}, the best "
        f"of {len(trials)}."
    )


def _describe_cold(metrics: Mapping[str, float], monitor: str) -> list[str]:
    """What the number of cold cases says about a choice."""
    cold, cases = int(metrics["cold/cases"]), int(metrics["cases"])
    part, _, metric = monitor.rpartition("/")
    if not cold:
        return ["validation has no cold case: it was chosen on warm cases alone."]
    if part == BALANCED and min(cold, cases - cold) < FEWEST:
        few, rest = describe_balance(cold, cases - cold)
        return [f"{few}: it was chosen on {rest}."]
    if part == "cold" and cold < FEWEST:
        return [f"it was chosen on {cold} cold cases; evaluation.monitor={metric} counts all."]
    return []


def _describe_edges(trials: Sequence[Trial], best: Trial, names: Collection[str]) -> list[str]:
    """Settings whose best number is the last one that was tried; below 0 there is none."""
    out = []
    for name in names:
        tried = sorted({trial.settings[name] for trial in trials})
        value = best.settings[name]
        if len(tried) > 1 and value and value in (tried[0], tried[-1]):
            which, more = ("largest", "larger") if value == tried[-1] else ("smallest", "smaller")
            out.append(
                f"{name}={value:g} is the {which} that was tried; a {more} one may be better."
            )
    return out
