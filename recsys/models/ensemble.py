"""Finished runs that score together, as a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any, Never, Protocol, cast

import torch
from torch import Tensor, nn

from recsys.architectures.ensemble import Config
from recsys.errors import ConfigError
from recsys.layers.fusion import Normalization, fuse_reciprocal_ranks
from recsys.models.fusion.cases import (
    FOLDS,
    CaseCollector,
    Judge,
    ScoredCases,
    assign_folds,
)
from recsys.models.fusion.ranker import (
    fit_rankers,
    name_features,
    require_lightgbm,
    restore_ranker,
)
from recsys.models.fusion.signals import MemberScorer, Signals, get_candidate_rows
from recsys.models.fusion.weights import LEAST, By, CrossFitted, ScoreWeights, WeightSearch
from recsys.recommender.components import Components
from recsys.recommender.fitted import Fit, FittedRecommender
from recsys.types import AskedText, Batch, ItemBatch, Scored

KINDS: tuple[Normalization, ...] = ("zscore", "minmax", "rank")
FEWEST = {"weighted": 20, "ranker": 20}
"""Validation cases without which nothing is fitted."""


class Combiner(Protocol):
    """Makes one score of those of all members."""

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) scores."""
        ...


class ReciprocalRanks:
    """Reciprocal rank fusion.

    Cormack, Clarke, Büttcher, Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank
    Learning Methods (SIGIR 2009).

    Args:
        k: Of 1 / (k + rank).
    """

    def __init__(self, k: float) -> None:
        self.k = k

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) sums of 1 / (k + rank)."""
        return fuse_reciprocal_ranks(signals.rank(), self.k)


class OnlyMember:
    """The scores of the only member, as they are."""

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) its scores."""
        return signals.get_scores()[0]


class OutOfFold:
    """Scores the queries of each user by what was fitted without that user.

    Args:
        folds: What was fitted without each fold.
    """

    def __init__(self, folds: Sequence[Combiner]) -> None:
        self.folds = folds

    def combine(self, signals: Signals) -> Tensor:
        """(Q, C) scores."""
        fold = assign_folds(signals.users)
        out = torch.empty(signals.items.shape, device=signals.items.device)
        for number, made in enumerate(self.folds):
            at = (fold == number).nonzero()[:, 0]
            if len(at):
                out[at] = made.combine(signals.select(at)).float()
        return out


class Model(FittedRecommender):
    """Asks its members and makes one score of theirs.

    An item's representation is its catalog row, and a query's its fused scores of the whole
    catalog: scores are normalised, and ranks counted, among all items. Where a member reads user
    and item together, only lists are ranked, and a list is what scores are normalised among. What a
    user has had is no part of either, where it is masked in the ranking. A query without history is
    answered by each member as that answers it alone.
    """

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        if config.combine == "ranker":
            require_lightgbm()
        self.config = config
        self.whole = parts.ranking == "catalog"
        self.scorer = MemberScorer(parts.members, self.whole and parts.mask_history)
        self.names = [member.name for member in parts.members]
        # Theirs are the parameters, and they compute where the ensemble does.
        self.models = nn.ModuleList(self.scorer.models)
        self.ranks_catalog = self.scorer.ranks_catalog
        if self.whole and not self.ranks_catalog:
            (folder, *_) = (
                member.folder
                for member, model in zip(parts.members, self.scorer.models, strict=True)
                if not model.ranks_catalog
            )
            raise ConfigError(
                f"architecture.members: {folder} reads user and item together and cannot rank the "
                "whole catalog; leave it out, or set evaluation.protocol=candidates."
            )
        self.combiner: Combiner | None = None
        if config.combine == "rrf":
            self.combiner = ReciprocalRanks(config.k)
        elif config.combine == "weighted" and len(parts.members) == 1:
            self.combiner = OnlyMember()

    @property
    def needs_fit(self) -> bool:
        """Whether there are weights or a ranker to fit."""
        return self.config.combine == "ranker" or (
            self.config.combine == "weighted" and len(self.parts.members) > 1
        )

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Nothing: its members know."""
        return {}

    def index(self, plan: ItemBatch) -> Tensor:
        """Catalog rows, (U,)."""
        return plan.items

    @torch.no_grad()
    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, I) scores of the whole catalog."""
        found = [self._combine(signals) for _, signals in self.scorer.score_catalog(batch)]
        return torch.cat(found)

    def score(self, queries: Tensor, items: Tensor) -> Tensor:
        """(Q, I), (N,) rows -> (Q, N)."""
        return queries[:, items]

    @torch.no_grad()
    def score_candidates(self, batch: Batch, items: Tensor) -> Tensor:
        """(Q, C) scores of the candidates; the same as among the whole catalog where that is."""
        rows = get_candidate_rows(batch)
        if not self.ranks_catalog:
            return self._combine(self.scorer.score_lists(batch))
        return torch.cat(
            [self._combine(s.cut(rows[at])) for at, s in self.scorer.score_catalog(batch)]
        )

    def make_token_scores(self, batch: Batch, row: int, asked: AskedText | None) -> Never:
        """None: what counts of a member's score is how it stands among those of all items.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "tokens=true: an ensemble reads no words but by its members, which are explained on "
            "their own: give the run of one, or leave tokens= out."
        )

    def forward(self, batch: Batch) -> Scored:
        """Scores of the candidates, (Q, C)."""
        return Scored(scores=self.score_candidates(batch, self.index(batch.plan)))

    def _combine(self, signals: Signals) -> Tensor:
        if self.combiner is None:
            raise RuntimeError("an ensemble scores once it was fitted, or restored")
        return self.combiner.combine(signals)

    def check_cases(self, cases: int) -> None:
        """Refuses weights or trees of too few validation cases.

        Raises:
            ConfigError: They are fewer than `FEWEST`.
        """
        combine = self.config.combine
        if cases < FEWEST[combine]:
            raise ConfigError(
                f"architecture.combine={combine} is fitted on validation cases, and {cases} are "
                f"fewer than {FEWEST[combine]}; set architecture.combine=rrf, which fits nothing."
            )

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Batch]], monitor: str) -> Fit:
        """Decides what is open, by validation cases alone, and takes it.

        Args:
            batches: Gives the validation cases, as often as it is asked.
            monitor: The metric to decide by.

        Raises:
            ConfigError: There are too few validation cases.
        """
        self.eval()
        config = self.config
        kinds = KINDS if config.normalize == "auto" else (config.normalize,)
        collector = CaseCollector(
            self.scorer,
            kinds if config.combine == "weighted" else ("zscore",),
            config.k,
            config.top,
            self.parts.counts,
            self.whole,
            self.parts.windows,
        )
        cases = collector.collect(batches())
        self.check_cases(len(cases))
        judge = Judge(monitor, self.parts.label, self.parts.ks)
        if config.combine == "ranker":
            return self._fit_ranker(cases, judge, batches)
        return self._fit_weights(cases, judge, kinds, batches)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes what `fit` decided earlier.

        Raises:
            ConfigError: It is of other members.
        """
        if self.config.combine == "ranker":
            self.combiner = restore_ranker(state, self.config.k, self._top, self.parts.counts)
            return
        made = ScoreWeights.restore(state, self.config.k, self.parts.counts)
        if made.weights.shape[1] != len(self.parts.members):
            raise ConfigError(
                f"the fitted weights are of {made.weights.shape[1]} members, and "
                f"architecture.members names {len(self.parts.members)}; run fit again."
            )
        self.combiner = made

    def _fit_weights(
        self,
        cases: ScoredCases,
        judge: Judge,
        kinds: Sequence[Normalization],
        batches: Callable[[], Iterable[Batch]],
    ) -> Fit:
        """Weights on the scale, and by what, that validation cases choose out of fold."""
        search = WeightSearch(cases, judge, self.config.k, self.parts.counts)
        notes, apart = [], [cast(By, name) for name in dict.fromkeys(self.config.by)]
        cold = int(cases.cold.sum())
        if "cold" in apart and cold < LEAST:
            apart.remove("cold")
            notes.append(
                f"architecture.by: {cold} cold validation cases are too few ({LEAST}) for weights "
                "of their own, so that cold items have those of the others."
            )
        tried: list[dict[str, Any]] = []
        best: tuple[float, CrossFitted, tuple[By, ...]] | None = None

        def try_one(kind: Normalization, by: tuple[By, ...]) -> None:
            nonlocal best
            made = search.find(kind, by)
            value = made.measure(cases, judge)
            tried.append({"normalize": kind, "by": list(by), judge.monitor: value})
            if best is None or value > best[0] + 1e-12:  # of equals the simpler, which came first
                best = value, made, by

        for kind in kinds:
            try_one(kind, ())
        assert best is not None
        chosen = best[1].whole.kind
        for by in chain.from_iterable(combinations(apart, n + 1) for n in range(len(apart))):
            try_one(chosen, by)
        _, made, by = best
        validation = self._measure(made.folds, cases, batches)
        self.combiner = made.whole
        notes.append(
            f"weights: fitted on {len(cases):,} validation cases; what is said of the validation "
            f"is out of fold ({FOLDS} folds of users)."
        )
        return Fit(
            {"normalize": chosen, "by": list(by), "weights": made.whole.summarize(self.names)},
            tried,
            validation,
            notes,
            made.whole.make_state(),
        )

    @property
    def _top(self) -> int | None:
        """How many of each member's best items trees rank; None: all of a list."""
        return self.config.top if self.whole else None

    def _fit_ranker(
        self, cases: ScoredCases, judge: Judge, batches: Callable[[], Iterable[Batch]]
    ) -> Fit:
        """Trees, as many as validation cases choose out of fold."""
        whole, folds, tried = fit_rankers(cases, judge, self.config.k, self._top, self.parts.counts)
        validation = self._measure(folds, cases, batches)
        self.combiner = whole
        gains = whole.booster.feature_importance("gain", iteration=whole.rounds).tolist()
        total = sum(gains) or 1.0
        shares = {
            name: round(gain / total, 4)
            for name, gain in zip(name_features(self.names), gains, strict=True)
        }
        note = (
            f"ranker: fitted on {len(cases):,} validation cases; what is said of the validation is "
            f"out of fold ({FOLDS} folds of users)."
        )
        return Fit(
            {"rounds": whole.rounds, "gain": shares},
            [{"rounds": rounds, judge.monitor: value} for rounds, value in tried.items()],
            validation,
            [note],
            whole.make_state(),
        )

    def _measure(
        self,
        folds: Sequence[Combiner],
        cases: ScoredCases,
        batches: Callable[[], Iterable[Batch]],
    ) -> dict[str, float]:
        """All metrics of the validation cases, each scored by what was fitted without its user."""
        self.combiner = OutOfFold(folds)
        return self.evaluate(batches())
