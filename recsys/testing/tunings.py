"""What every tuning method keeps, whatever the architecture above it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.recommender.trainable import require_trainable
from recsys.testing.contract import WAYS, Contract, compute_loss, find_objective, take_batch


def find_rest(way: str) -> list[str]:
    """Words of an architecture that reads texts in a way, with an objective."""
    return [*WAYS[way], find_objective(WAYS[way])]


class TuningContract(Contract):
    """Inherit it and name the `choice`, with the `settings` that it needs."""

    def make_words(self, way: str) -> list[str]:
        """Words of a run with this method and a way in which texts reach the encoder."""
        own = [f"tuning.{word}" for word in self.settings]
        return [f"tuning={self.choice}", *own, *find_rest(way)]

    @pytest.mark.parametrize("way", WAYS)
    def test_it_starts_at_the_pretrained_output_if_it_says_so(self, way: str) -> None:
        """`Tuned.identical` is what the training's start and L2-SP rely on."""
        made = self.assemble(*self.make_words(way))
        frozen = self.assemble("tuning=frozen", *find_rest(way))
        batch = take_batch(made)
        model, still = made.recommender.eval(), frozen.recommender.eval()
        with torch.no_grad():
            same = torch.allclose(model(batch).scores, still(batch).scores, atol=1e-4)
        assert same is require_trainable(model).encoding.tuned.identical

    @pytest.mark.parametrize("way", WAYS)
    def test_it_trains_its_own_alone_and_comes_back_as_it_was_saved(
        self, way: str, tmp_path: Path
    ) -> None:
        """A checkpoint holds what was trained, and nothing else has moved."""
        words = self.make_words(way)
        made = self.assemble(*words)
        batch, model = take_batch(made), require_trainable(made.recommender).eval()
        with torch.no_grad():
            start = model(batch).scores
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
        optimizer = torch.optim.SGD(model.get_trained_parameters().values(), lr=0.05)
        for _ in range(2):  # what is zero at first moves its partner in the second step
            optimizer.zero_grad()
            compute_loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        changed = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
        assert changed
        assert changed <= set(model.get_trained_parameters())
        assert all(p.grad is not None for p in model.get_trained_parameters().values())
        model.save_trained(tmp_path / "x.safetensors")
        again = require_trainable(self.assemble(*words).recommender).eval()
        again.load_trained(tmp_path / "x.safetensors")
        with torch.no_grad():
            assert torch.allclose(again(batch).scores, model(batch).scores, atol=1e-5)
            assert not torch.allclose(model(batch).scores, start, atol=1e-4)
