"""Both sides of a step at the same weights on the same batch: the package's and the typical."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typical
from lightning.fabric import Fabric
from torch import Tensor, nn

from recsys.assembly import build
from recsys.config.compose import compose
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.pretrained.tokenizer import load_tokenizer
from recsys.recommender.flops import probe
from recsys.recommender.trainable import require_trainable
from recsys.types import Batch

Found = tuple[float, dict[str, Tensor]]
"""A loss and its gradients by name."""


class Ours:
    """The package's own modules in a bare loop, the way its Trainer calls them.

    Dropout is off on all sides, so that losses and gradients can be compared; nobody clips.

    Args:
        data: Folder that holds `amazon-instruments`.
        words: Further words of the command.

    Attributes:
        seconds: Of assembling: data, tokens, encoder and what is kept of its frozen layers.
    """

    def __init__(self, data: Path, words: Sequence[str]) -> None:
        began = time.perf_counter()
        common = [
            "data.source=sequences",
            f"data.source.path={data / 'amazon-instruments'}",
            "data.max_users=1000",
            "data.max_items=6000",
            "data.queries=last",
            "trainer.batch_size=32",
            "trainer.accelerator=cpu",
            "regularization.dropout=0",
            "optimizer.lr=2e-5",
            "optimizer.schedule=constant",
            "optimizer.warmup=0",
        ]
        given = {word.partition("=")[0] for word in words}
        kept = [word for word in common if word.partition("=")[0] not in given]
        self.made = build.assemble(compose([*kept, *words]))
        self.seconds = time.perf_counter() - began
        self.model = require_trainable(self.made.recommender)
        # Stands for the Trainer: one device, and a log that goes nowhere.
        # The model holds it weakly.
        self._fabric = Fabric(accelerator="cpu", devices=1)
        self._fabric.accumulate_grad_batches = 1  # type: ignore[attr-defined]
        self.model.fabric = self._fabric
        self.model.train()
        self._optimizer: torch.optim.Optimizer | None = None

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

    def batches(self, count: int) -> list[tuple[int, Any]]:
        """Epoch and examples of the first batches, as the loader names them."""
        sampler: Any = self.made.datamodule.train_dataloader().sampler
        return [(epoch, at) for epoch, at, _ in list(sampler)[:count]]

    def batch(self, key: tuple[int, Any]) -> Batch:
        """What the loader makes of a batch's name."""
        return self.made.datamodule.make_train_batch(key[1], key[0])

    def lengths(self, batch: Batch) -> list[int]:
        """Tokens of each text of the plan, special tokens included."""
        catalog = self.model.encoding.catalog
        if catalog is None:
            raise RuntimeError("this recommender reads no tokens")
        return list(self.model.encoder.compute_lengths(catalog.count_tokens(batch.plan.items)))

    def step(self, make: Callable[[], Batch]) -> Callable[[], float]:
        """One optimiser step on a batch, the making of the batch included; returns the loss."""

        def call() -> float:
            batch = make()
            self.optimizer.zero_grad()
            loss = self.model.training_step(batch, 0)
            torch.autograd.backward(loss)
            self.optimizer.step()
            return float(loss.item())

        return call

    def gradients(self, batch: Batch) -> Found:
        """Loss and gradients by name, without a step."""
        self.model.zero_grad()
        loss = self.model.training_step(batch, 0)
        torch.autograd.backward(loss)
        return float(loss.detach()), taken(self.model)

    def keep(self, batch: Batch) -> Tensor:
        """(B, B) which targets the in-batch softmax compares a user with; see `typical`."""
        items = batch.plan.items[batch.candidates[:, 0]]
        known = self.model.parts.around(self.model.score).is_known(batch.users, items)
        same = items[:, None] == items
        first = ~same.tril(-1).any(1)
        own = torch.eye(len(items), dtype=torch.bool)
        return (~known & ~same & first) | own


def move(model: nn.Module) -> None:
    """Moves what is zero at first, the same way for the same seed: zeros would hide an error."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            added = p.requires_grad and p.ndim == 2 and ("lora_" in name or "bottleneck_" in name)
            if added or name.startswith(("item_head", "user_head")):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.02)


def taken(model: nn.Module) -> dict[str, Tensor]:
    """Gradients by name, taken off the model."""
    out = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return out


def apart(found: Found, right: Found) -> dict[str, float]:
    """Relative differences of two losses and of the gradients that both sides have, as a whole."""
    names = [n for n in found[1] if n in right[1]]
    if not names:
        raise RuntimeError("both sides have no trained parameter in common")
    off = sum(float((found[1][n] - right[1][n]).double().square().sum()) for n in names)
    norm = sum(float(right[1][n].double().square().sum()) for n in names)
    loss = abs(found[0] - right[0]) / abs(right[0])
    return {"loss apart": loss, "gradient apart": (off / norm) ** 0.5}


@dataclass(frozen=True)
class Places:
    """What a call pads.

    Attributes:
        texts: Texts encoded, repeats and padding texts included.
        real: Tokens of texts that are none of the padding.
        padded: Token places computed.
        flops: Operations of the encoder on all places.
    """

    texts: int
    real: int
    padded: int
    flops: float


class Loop:
    """The typical loop on the batch and the weights of `Ours`.

    Args:
        ours: What to take the weights, the titles and the tuned parameters from.
        batch: The batch.
        whole: Whether everything trains, embeddings included, as it does where nobody thinks of it.
    """

    def __init__(self, ours: Ours, batch: Batch, whole: bool) -> None:
        encoder, parts = ours.model.encoder, ours.model.parts
        self.model = typical.TwoTower(copy.deepcopy(encoder.model), encoder.width)
        self.names = {
            f"model.{n}": f"_encoder.model.{n}" for n, _ in encoder.model.named_parameters()
        }
        self.names |= {n: n for n in ("item_head.weight", "user_head.weight", "log_scale")}
        self.names["rate"] = "mix.rate"
        theirs = dict(ours.model.named_parameters())
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(theirs[self.names[name]])
        if whole:
            self.model.requires_grad_(True)
        tokenizer = load_tokenizer(ModelFiles.locate(compose([]).encoder.model))
        self.collate = typical.Collate(tokenizer, max_length=66)  # as data.max_tokens=64 cuts
        rows, text = batch.plan.items, parts.texts
        self.samples = [
            typical.Sample(
                [text[rows[i]] for i in batch.history[q][:prefix].tolist()],
                text[rows[batch.candidates[n, 0]]],
            )
            for n, (q, prefix) in enumerate(batch.query.tolist())
        ]
        self.keep = ours.keep(batch)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=2e-5)
        self.step = typical.step(self.model, optimizer, self.collate, self.samples, self.keep)

    def gradients(self) -> Found:
        """Loss and gradients, by the names of `Ours`."""
        self.model.train()
        self.model.zero_grad()
        loss = self.model(self.collate(self.samples), self.keep)
        torch.autograd.backward(loss)
        return float(loss.detach()), {self.names[n]: g for n, g in taken(self.model).items()}

    def places(self, ours: Ours) -> Places:
        """What a step computes."""
        batch = self.collate(self.samples)
        masks = [batch.history["attention_mask"], batch.target["attention_mask"]]
        rate = probe(ours.model.encoder, None)
        inside = batch.inside.flatten()
        return Places(
            texts=sum(len(m) for m in masks),
            real=int(masks[0][inside].sum() + masks[1].sum()),
            padded=sum(m.numel() for m in masks),
            flops=sum(m.numel() * (rate.token + rate.square * m.shape[1]) for m in masks),
        )
