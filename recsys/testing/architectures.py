"""What every architecture keeps: one score, however it is asked for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.config.compose import compose
from recsys.data.batches.rows import CandidateLists
from recsys.fit.command import fit
from recsys.recommender.base import Recommender
from recsys.recommender.fitted import FittedRecommender
from recsys.testing.contract import LISTS, Contract, find_objective, learn_by_heart
from recsys.testing.objectives import make_batch
from recsys.types import Batch

TEST = 2


class ArchitectureContract(Contract):
    """Inherit it and name the `choice`, with the `settings` that it needs.

    One that trains is also tried with an objective that needs what it gives.
    """

    def make_words(self) -> list[str]:
        """Words of a run on lists of nine candidates."""
        own = [f"architecture={self.choice}", *(f"architecture.{w}" for w in self.settings)]
        if "members" in {f.name for f in dataclasses.fields(compose(own).architecture)}:
            own.append(f"architecture.members=[{','.join(map(str, self.make_members()))}]")
        learns = [find_objective(own)] if compose(own).architecture.trains else []
        return [*own, *learns, *LISTS]

    def make_members(self) -> list[Path]:
        """Two finished runs on the shop and the same lists, for what combines members."""
        words = [*self.words, *LISTS]
        return [
            fit(compose([*words, f"architecture={name}"])) for name in ("item_knn", "popularity")
        ]

    def test_scores_do_not_depend_on_company(self) -> None:
        """Neither on the other rows of the batch (padding), nor on the order of candidates.

        And what ranks a catalog, `index`, `queries` and `score`, gives the scores of `forward`.
        """
        made = self.assemble(*self.make_words())
        model, examples = made.recommender.eval(), made.examples
        if isinstance(model, FittedRecommender) and model.needs_fit:
            model.fit(made.datamodule.val_dataloader, "ndcg@10")
        lists = made.datamodule.lists[TEST]

        def batch(of: CandidateLists) -> Batch:
            return examples.make_batch(examples.make_list_rows(of), made.datamodule.sizes)

        together, alone = batch(lists), batch(_take(lists, slice(3, 4)))
        order = np.random.default_rng(0).permutation(9)
        mixed = batch(_take(lists, slice(3, 4), order))
        with torch.no_grad():
            want = model(together).scores[3]
            assert torch.isfinite(want).all()
            assert torch.allclose(model(alone).scores[0], want, atol=1e-4)
            assert torch.allclose(model(mixed).scores[0], want[order], atol=1e-4)
            items = model.index(together.plan)
            assert torch.allclose(model.score_candidates(together, items)[3], want, atol=1e-4)
            own = model.index(alone.plan)
            every = model.score(model.queries(alone, own), own)
            assert torch.allclose(every[0][alone.candidates[0]], want, atol=1e-4)
            _check_cosines(model, own)

    def test_it_learns_a_batch_by_heart(self) -> None:
        """A few queries whose targets differ: the loss falls to a hundredth."""
        words = self.make_words()
        objective = compose(words).objective
        if objective is None:
            return  # what is fitted at once is measured by the other tests
        made = self.assemble(*words, "tuning=full")
        batch = make_batch(made, 8 if objective.draws.count else 0)
        assert learn_by_heart(made.recommender.eval(), batch, 6e-3) < 0.02


def _check_cosines(model: Recommender, items: Tensor) -> None:
    """Items (N, ...) are as alike the one way as the other, and in another order no less."""
    cosines = model.compute_cosines(items)
    if cosines is None:
        return
    assert cosines.shape == (len(items), len(items))
    assert torch.allclose(cosines, cosines.T, atol=1e-5)
    assert float(cosines.abs().max()) <= 1 + 1e-5
    turned = model.compute_cosines(items.flip(0))
    assert turned is not None
    assert torch.allclose(turned.flip(0, 1), cosines, atol=1e-4)


def _take(lists: CandidateLists, where: slice, order: np.ndarray | None = None) -> CandidateLists:
    """Some of the cases, with their candidates in another order."""
    places = np.arange(lists.candidates.shape[1]) if order is None else order
    return type(lists)(
        lists.at[where],
        lists.candidates[where][:, places],
        lists.labels[where][:, places],
        lists.inserted[where],
    )
