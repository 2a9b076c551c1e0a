"""A run assembled as `recsys.fit` does it, on the device, whose steps and texts can be timed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric import Fabric
from measuring import CUDA_ONLY, Row, Setting, measure_seconds
from torch import Tensor

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.fit.command import resolve
from recsys.recommender.trainable import require_trainable
from recsys.testing.syncs import record_syncs
from recsys.types import Batch

PRECISIONS = {"fp32": "32-true", "bf16-mixed": "bf16-mixed", "fp16-mixed": "16-mixed"}
BATCHES = 4
"""Different batches that steps take in turn."""


class Bench:
    """One recommender and its optimiser, in a bare loop that does what the Trainer does.

    Args:
        setting: Where.
        words: The words of a command.
        precision: As in `trainer.precision`; a CPU always computes in fp32.

    Attributes:
        model: The recommender, on the device.
    """

    def __init__(self, setting: Setting, words: Sequence[str], precision: str) -> None:
        self.setting = setting
        self.precision = "fp32" if setting.dry else precision
        own = [
            f"trainer.accelerator={setting.accelerator}",
            f"trainer.precision={self.precision}",
            "tracking.wandb=off",
            "optimizer.schedule=constant",
            "optimizer.warmup=0",
            f"output={setting.scratch / 'runs'}",
        ]
        self.made = build.assemble(resolve(compose([*own, *words])))
        self.model = require_trainable(self.made.recommender)
        # Stands for the Trainer: one device and a precision. The model holds it weakly.
        accelerator = "cpu" if setting.dry else "cuda"
        name: Any = PRECISIONS[self.precision]
        self.fabric = Fabric(accelerator=accelerator, devices=1, precision=name)
        self.fabric.accumulate_grad_batches = 1  # type: ignore[attr-defined]
        self.model.fabric = self.fabric
        self.model.to(setting.device)
        self.model.train()
        self._optimizer: torch.optim.Optimizer | None = None
        self._batches: list[Batch] = []

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The one that the run would use."""
        if self._optimizer is None:
            trained = self.model.get_trained_parameters()
            plain = frozenset(k for k, p in trained.items() if p.ndim < 2 or "norm" in k.lower())
            made: torch.optim.Optimizer
            made, _ = self.model.parts.optimise(self.model.get_stepped_roles(), plain, 1_000_000)
            self._optimizer = made
        return self._optimizer

    def list_batches(self) -> list[Batch]:
        """Some batches of training, on the host."""
        if not self._batches:
            self.made.datamodule.trainer = None
            loader = self.made.datamodule.train_dataloader()
            self._batches = list(itertools.islice(iter(loader), BATCHES))
        return self._batches

    def step(self, batch: Batch) -> Tensor:
        """One optimiser step, the batch's way to the device included; () its loss."""
        batch = batch.to(self.setting.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with self.fabric.autocast():
            loss: Tensor = self.model.training_step(batch, 0)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.get_trained_parameters().values(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def count_step(self) -> tuple[float, float, float]:
        """Texts, tokens and operations of a step, in the mean over the batches."""
        work = self.model.work
        before = work.texts, work.tokens, work.flops
        work.counting = True
        for batch in self.list_batches():
            self.step(batch)
        work.counting = False
        found = work.texts - before[0], work.tokens - before[1], work.flops - before[2]
        return found[0] / BATCHES, found[1] / BATCHES, found[2] / BATCHES

    def measure_step(self, row: Row) -> None:
        """Adds to a row what an optimiser step takes."""
        texts, tokens, flops = self.count_step()
        turn = itertools.cycle(self.list_batches())
        seconds = measure_seconds(lambda: self.step(next(turn)), self.setting)
        row.figures["queries"] = float(len(self.list_batches()[0].query))
        row.add_rates(seconds, texts=round(texts), tokens=round(tokens), flops=flops)
        row.add_memory()
        row.figures["host syncs a step"] = CUDA_ONLY
        if self.setting.device.type == "cuda":
            batch = self.list_batches()[0]
            places = record_syncs(lambda: self.step(batch))
            row.figures["host syncs a step"] = describe_syncs(places)

    def encode(self, rows: Tensor) -> Tensor:
        """(N, V) vectors of catalog rows (N,), without gradients, in the run's precision."""
        encoding = self.model.encoding
        with torch.no_grad(), self.fabric.autocast():
            return self.model.encoder(encoding.gather_tokens(rows, None, self.setting.device))

    def measure_encoding(self, row: Row, texts: int) -> None:
        """Adds to a row what encoding so many texts of the catalog takes."""
        encoder, encoding = self.model.encoder, self.model.encoding
        self.model.eval()
        rows = torch.arange(min(texts, len(encoding.catalog)))
        lengths = encoder.compute_lengths(encoding.catalog.count_tokens(rows))
        with torch.no_grad(), self.fabric.autocast():
            rate = self.model.work.get_rate(encoder, None)
        tokens = sum(lengths)
        flops = rate.token * tokens + rate.square * sum(n * n for n in lengths)
        seconds = measure_seconds(lambda: self.encode(rows), self.setting, rounds=3)
        row.figures["packed"] = "yes" if self._packs() else "no"
        row.add_rates(seconds, texts=len(rows), tokens=tokens, flops=flops)
        row.add_memory()

    def _packs(self) -> bool:
        with self.fabric.autocast():
            return self.model.encoder.packs


def merge(words: list[str], more: list[str]) -> list[str]:
    """Words of a command, in which later ones stand for earlier ones of the same key."""
    given = {word.partition("=")[0] for word in more}
    return [word for word in words if word.partition("=")[0] not in given] + more


def describe_syncs(places: Counter[str]) -> str:
    """How many there are, and where."""
    listed = ", ".join(f"{place} ({times})" for place, times in places.most_common(4))
    return f"{places.total()}{': ' + listed if listed else ''}"
