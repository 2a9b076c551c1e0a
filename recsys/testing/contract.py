"""What the contracts of all axes share: the shop, the words of a run, steps on one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from recsys.assembly import build
from recsys.assembly.assembled import Assembly
from recsys.config.compose import compose, list_choices
from recsys.recommender.base import Recommender
from recsys.recommender.trainable import require_trainable
from recsys.testing.shop import (
    make_decoder_words,
    make_shop_words,
    write_decoder,
    write_encoder,
    write_shop,
)
from recsys.types import Batch

LISTS = ("evaluation.protocol=candidates", "evaluation.candidates=9")
"""Lists are ranked, as an architecture asks that reads each pair of user and item jointly."""

WAYS: Mapping[str, tuple[str, ...]] = {
    "history": ("architecture=two_tower",),
    "separate": (
        "architecture=two_tower",
        "architecture.towers=separate",
        "architecture.history=mean",
    ),
    "text": ("architecture=two_tower", "architecture.user=text"),
    "late": ("architecture=late_interaction",),
    "cross": ("architecture=cross_encoder", *LISTS),
    "prompt": ("architecture=prompt", *LISTS),
}
"""The ways in which texts reach an encoder."""


class Contract:
    """A choice and what it is tried with; inherit one of the contracts of an axis.

    Attributes:
        choice: Its name, or its import path.
        settings: Words that it needs beside its name, such as `"tuning.method=vera"`.
        words: Of a run on the shop, without the axes.
    """

    choice: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()
    words: list[str]
    _decoder: list[str]
    __test__ = False  # what is inherited is collected, and not the base

    def __init_subclass__(cls) -> None:
        """A class that names its choice is one of tests."""
        cls.__test__ = hasattr(cls, "choice")

    @pytest.fixture(autouse=True)
    def _prepare(
        self,
        tmp_path: Path,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Words of a run whose files and cache are of this test alone."""
        monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("WANDB_MODE", "disabled")
        root = tmp_path_factory.getbasetemp() / "recsys-testing"
        if not (root / "ready").is_file():
            kinds = (("shop", write_shop), ("encoder", write_encoder), ("decoder", write_decoder))
            for name, write in kinds:
                (root / name).mkdir(parents=True, exist_ok=True)
                write(root / name)
            (root / "ready").touch()
        self.words = [*make_shop_words(root / "shop", root / "encoder"), f"output={tmp_path}"]
        self._decoder = make_decoder_words(root / "decoder")

    def assemble(self, *words: str) -> Assembly:
        """Everything that a run with these further words needs, of a decoder for prompts."""
        run = compose([*self.words, *words])
        if run.architecture.prompt is not None:
            run = compose([*self.words, *self._decoder, *words])
        return build.assemble(run)


def find_objective(architecture: Sequence[str]) -> str:
    """The word of a shipped objective that needs what an architecture gives: queries, if it does.

    Args:
        architecture: Words of the architecture.
    """
    gives = compose(architecture).architecture.gives
    need = "queries" if "queries" in gives else "scores"
    found = {name: compose([f"objective={name}"]).objective for name in list_choices("objective")}
    fitting = [
        n for n, o in found.items() if o is not None and o.needs == need and not o.reads_labels
    ]
    return f"objective={fitting[-1]}"


def take_batch(made: Assembly) -> Batch:
    """The first batch of training."""
    batch: Batch = next(iter(made.datamodule.train_dataloader()))
    return batch


def compute_loss(model: Recommender, batch: Batch) -> Tensor:
    """The mean loss of a batch."""
    learns = require_trainable(model)
    loss = learns.parts.objective(learns(batch), batch, learns.get_objective_context())
    return loss.total / loss.count


def learn_by_heart(model: Recommender, batch: Batch, rate: float, steps: int = 400) -> float:
    """Trains on one batch until its loss is below a hundredth, and of what it was at first.

    Args:
        model: In evaluation mode: dropout would keep the loss up.
        batch: The batch.
        rate: Learning rate of Adam at first; it falls to a twentieth.
        steps: At most so many.

    Returns:
        The loss as a share of the first one.
    """
    model.keep_precision()  # numbers that were rounded have no gradient
    trained = require_trainable(model).get_trained_parameters()
    optimizer = torch.optim.Adam(trained.values(), lr=rate)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    first = compute_loss(model, batch).item()
    share = 1.0
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model, batch)
        share = loss.item() / first
        if share < 0.01 and loss.item() < 0.01:
            break
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
    return share
