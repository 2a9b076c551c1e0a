"""LightGBM's LambdaRank over what all members say of an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.layers.fusion import fuse_reciprocal_ranks
from recsys.models.fusion.cases import FOLDS, Judge, ScoredCases, compute_means
from recsys.models.fusion.signals import Signals

if TYPE_CHECKING:
    from lightgbm import Booster

ROUNDS = (10, 25, 50, 100, 200)
"""How many trees are tried."""
TIE = 1e-3
"""What reciprocal rank fusion adds at most: to equals of the trees, which have few leaves."""
_HELD = 1 << 22
"""Features held at a time."""
PARAMETERS = {
    "objective": "lambdarank",
    "metric": "None",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "max_bin": 255,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
"""Few leaves, as validation cases are few; nothing is drawn, so that the same cases give the same
trees on one thread."""

Floats = npt.NDArray[np.float64]


def require_lightgbm() -> None:
    """Refuses to go on without the library, before members are asked.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        raise ConfigError(
            "architecture.combine=ranker needs LightGBM: pip install 'recsys[ensemble]'; or set "
            "architecture.combine=weighted."
        ) from None


@dataclass(frozen=True)
class LearnedRanker:
    """Trees that rank what any member puts among its best.

    Attributes:
        booster: The trees.
        rounds: How many of them count.
        k: Of the reciprocal ranks.
        top: How many of each member's best items are ranked by trees; None: all, as in lists.
            Other items of a catalog stand below them, in the order of reciprocal rank fusion.
        counts: (I,) how often training shows each item.
    """

    booster: Booster
    rounds: int
    k: float
    top: int | None
    counts: Tensor

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) scores."""
        return self.score(
            signals.normalize("zscore", self.k),
            signals.rank(),
            signals.items,
            signals.lengths,
        )

    def combine_cases(self, cases: ScoredCases) -> Tensor:
        """(N, C) scores of collected cases."""
        return self.score(
            cases.normalized["zscore"].permute(2, 0, 1),
            cases.ranks.permute(2, 0, 1),
            cases.items,
            cases.lengths,
        )

    def score(self, scores: Tensor, ranks: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        """Scores of items by the trees.

        Args:
            scores: (M, Q, C) normalised scores of members.
            ranks: (M, Q, C) their ranks.
            items: (Q, C) catalog rows, -1 for none.
            lengths: (Q,) events of the histories.

        Returns:
            (Q, C) float32.
        """
        fused = fuse_reciprocal_ranks(ranks, self.k) * ((self.k + 1) / len(ranks))
        proposed = find_proposed(ranks, items, self.top)
        query, column = proposed.nonzero(as_tuple=True)
        out = fused.new_zeros(fused.shape)
        for part in torch.split(torch.arange(len(query)), max(1, _HELD // (2 * len(ranks) + 4))):
            rows, places = query[part], column[part]
            features = make_features(
                scores[:, rows, places].T,
                ranks[:, rows, places].T,
                self.counts.to(items.device)[items[rows, places]],
                lengths[rows],
                fused[rows, places],
            )
            found = self.booster.predict(features, num_iteration=self.rounds, num_threads=1)
            out[rows, places] = torch.from_numpy(np.asarray(found)).to(out)
        least = out.masked_fill(~proposed, torch.inf).amin(1, keepdim=True)
        least = least.masked_fill(least.isinf(), 0.0)
        return torch.where(proposed, out + TIE * fused, least - 2 + fused)

    def make_state(self) -> dict[str, Any]:
        """What `restore` makes it of again; the trees in LightGBM's own text."""
        return {"rounds": self.rounds, "model": self.booster.model_to_string(num_iteration=-1)}


def find_proposed(ranks: Tensor, items: Tensor, top: int | None) -> Tensor:
    """(Q, C) bool: what any member has among its best, or all that is an item."""
    there = items >= 0
    return there if top is None else there & (ranks <= top).any(0)


def name_features(members: Sequence[str]) -> list[str]:
    """What the columns of `make_features` are called."""
    return [
        *(f"score of {name}" for name in members),
        *(f"rank of {name}" for name in members),
        "reciprocal ranks",
        "training events",
        "cold",
        "history",
    ]


def make_features(
    scores: Tensor, ranks: Tensor, counts: Tensor, lengths: Tensor, fused: Tensor
) -> Floats:
    """What the trees see of pairs of query and item.

    Args:
        scores: (P, M) normalised scores of members.
        ranks: (P, M) their ranks.
        counts: (P,) training events of the item; 0: cold.
        lengths: (P,) events of the history.
        fused: (P,) reciprocal ranks, fused.

    Returns:
        (P, 2 M + 4) float64.
    """
    one = [fused, counts.float().log1p(), (counts == 0).float(), lengths.float()]
    columns = torch.cat([scores, ranks.log(), torch.stack(one, dim=1)], dim=1)
    return columns.cpu().double().numpy()


def fit_rankers(
    cases: ScoredCases, judge: Judge, k: float, top: int | None, counts: Tensor
) -> tuple[LearnedRanker, list[LearnedRanker], dict[int, float]]:
    """Trees of all cases, and of each fold those of the other folds; how many is chosen by these.

    Args:
        cases: Validation cases.
        judge: What they are worth.
        k: Of the reciprocal ranks.
        top: As in `LearnedRanker`.
        counts: (I,) how often training shows each item.

    Returns:
        The ranker of all cases, those by fold, and the monitored metric out of fold by rounds.

    Raises:
        ConfigError: In the cases that are left without a fold, no member finds a target.
    """
    folds = [_train(cases.select(cases.folds != fold), k, top, counts) for fold in range(FOLDS)]
    values = torch.full((len(cases), len(ROUNDS)), torch.nan, dtype=torch.float64)
    for fold, booster in enumerate(folds):
        own = cases.folds == fold
        if bool(own.any()):
            some = cases.select(own)
            made = [LearnedRanker(booster, rounds, k, top, counts) for rounds in ROUNDS]
            scores = torch.stack([ranker.combine_cases(some) for ranker in made], dim=2)
            values[own] = judge.score_cases(scores, some)
    means = compute_means(values, judge.weigh_cases(cases.cold)).nan_to_num(nan=-1.0)
    best = ROUNDS[int((means >= means.max() - 1e-12).nonzero()[0])]  # of equals the fewest
    tried = dict(zip(ROUNDS, means.tolist(), strict=True))
    whole = LearnedRanker(_train(cases, k, top, counts), best, k, top, counts)
    return whole, [LearnedRanker(booster, best, k, top, counts) for booster in folds], tried


def _train(cases: ScoredCases, k: float, top: int | None, counts: Tensor) -> Booster:
    """Trees of the cases whose target is among what is ranked by them.

    A target that was put beside what members propose would be known by its ranks alone.
    """
    import lightgbm

    ranks = cases.ranks.permute(2, 0, 1)
    proposed = find_proposed(ranks, cases.items, top)
    positive = (cases.labels > 0) & proposed
    rows = positive.any(1) & cases.reachable
    if not bool(rows.any()):
        raise ConfigError(
            "architecture.combine=ranker learns from validation cases whose target is among the "
            "best items of a member, and there is none; set architecture.combine=rrf."
        )
    proposed &= rows[:, None]
    query, column = proposed.nonzero(as_tuple=True)
    fused = fuse_reciprocal_ranks(ranks, k) * ((k + 1) / len(ranks))
    features = make_features(
        cases.normalized["zscore"][query, column],
        cases.ranks[query, column],
        counts[cases.items[query, column]],
        cases.lengths[query],
        fused[query, column],
    )
    labels = cases.labels[query, column].numpy()
    group = proposed.sum(1)[rows].numpy()
    data = lightgbm.Dataset(features, labels, group=group, free_raw_data=True)
    return lightgbm.train(PARAMETERS, data, num_boost_round=max(ROUNDS))


def restore_ranker(
    state: Mapping[str, Any], k: float, top: int | None, counts: Tensor
) -> LearnedRanker:
    """The ranker that `LearnedRanker.make_state` left.

    Raises:
        ConfigError: The trees cannot be read.
    """
    require_lightgbm()
    import lightgbm

    try:
        booster = lightgbm.Booster(model_str=state["model"])
    except (lightgbm.basic.LightGBMError, KeyError):
        raise ConfigError("the fitted ranker is damaged; run fit again.") from None
    return LearnedRanker(booster, int(state["rounds"]), k, top, counts)
