"""The typical loop: how most repositories train a two-tower on texts, written once as they do it.

The tokenizer is called in the collate on strings; histories are padded with empty texts to the
longest of the batch, texts to the longest of their call; every text is encoded, repeats and
padding included; nothing is kept from one step to the next. This is the way of newsreclib
(Iana et al., EMNLP 2023 demo) and Legommenders, which are not on PyPI. What is learned is what
`recsys` learns, so that losses and gradients can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """A training example before the collate.

    Attributes:
        history: Titles, oldest first.
        target: Title of the next item.
    """

    history: list[str]
    target: str


@dataclass(frozen=True)
class Collated:
    """A batch after the collate.

    Attributes:
        history: input_ids and attention_mask of B x H texts, each (B * H, L).
        target: The same of B texts, (B, L').
        inside: (B, H) true for real places of a history.
    """

    history: dict[str, Tensor]
    target: dict[str, Tensor]
    inside: Tensor


class Collate:
    """Tokenises and pads strings.

    Args:
        tokenizer: The model's own.
        max_length: Longest text in tokens, special tokens included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, samples: list[Sample]) -> Collated:
        """The batch of some samples."""
        longest = max(len(s.history) for s in samples)
        padded = [s.history + [""] * (longest - len(s.history)) for s in samples]
        inside = [[i < len(s.history) for i in range(longest)] for s in samples]
        return Collated(
            self.texts([text for history in padded for text in history]),
            self.texts([s.target for s in samples]),
            torch.tensor(inside),
        )

    def texts(self, texts: list[str]) -> dict[str, Tensor]:
        """input_ids and attention_mask of N texts, each (N, L), padded to the longest."""
        out = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: out[name] for name in ("input_ids", "attention_mask")}


class TwoTower(nn.Module):
    """Mean-pooled texts, a recency-weighted user, cosine with a temperature.

    Args:
        model: A transformers text model, with LoRA or adapters where it has any.
        width: D, width of its states.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.item_head = nn.Linear(width, width, bias=False)
        self.user_head = nn.Linear(width, width, bias=False)
        self.rate = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def pooled(self, inputs: dict[str, Tensor]) -> Tensor:
        """(N, D) mean states of N padded texts."""
        states: Tensor = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)

    def texts(self, inputs: dict[str, Tensor]) -> Tensor:
        """(N, D) unit vectors of N padded texts."""
        pooled = F.normalize(self.pooled(inputs), dim=-1)
        return F.normalize(pooled + self.item_head(pooled), dim=-1)

    def users(self, vectors: Tensor, inside: Tensor) -> Tensor:
        """(B, H, D) history vectors, (B, H) which are real -> (B, D) unit vectors."""
        age = inside.sum(1, keepdim=True) - 1 - torch.arange(inside.shape[1])
        logits = (-self.rate * age).masked_fill(~inside, float("-inf"))
        user = F.normalize((logits.softmax(-1).unsqueeze(-1) * vectors).sum(1), dim=-1)
        return F.normalize(user + self.user_head(user), dim=-1)

    def forward(self, batch: Collated, keep: Tensor) -> Tensor:
        """The in-batch softmax loss.

        Args:
            batch: The batch.
            keep: (B, B) which targets of the batch a user is compared with: not those known to be
                liked, and repeated targets once. Given, so that both sides compute the same.
        """
        history = self.texts(batch.history).view(*batch.inside.shape, -1)
        targets = self.texts(batch.target)
        users = self.users(history, batch.inside)
        scores = users @ targets.T * self.log_scale.exp()
        scores = scores.masked_fill(~keep, float("-inf"))
        return F.cross_entropy(scores, torch.arange(len(scores)))


def step(
    model: TwoTower,
    optimizer: torch.optim.Optimizer,
    collate: Collate,
    samples: list[Sample],
    keep: Tensor,
) -> Callable[[], float]:
    """One optimiser step on some samples, to be called as often as wanted; returns the loss."""

    def call() -> float:
        model.train()
        batch = collate(samples)
        optimizer.zero_grad()
        loss = model(batch, keep)
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.item())

    return call
