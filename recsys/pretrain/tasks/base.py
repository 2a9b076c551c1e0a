"""The abstract task: what an example of a pretraining is, what is read of it, and its loss."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.batches.catalog import Catalog
from recsys.data.training_events import Interactions
from recsys.encoders.encoder import Encoder
from recsys.encoders.pretrained.source import ModelFiles
from recsys.errors import DataError
from recsys.losses import compute_softmax_loss
from recsys.recommender.flops import FlopCounter
from recsys.types import Loss, Ragged, TextBatch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TaskComponents:
    """What a task is made of; it keeps none of the encoder's parameters.

    Attributes:
        catalog: Tokens of every item's text behind the prompt of items.
        number_words: Gives (sum of tokens,) the number of each token's word within its text, -1
            where it belongs to none.
        prompt: How many tokens at the left of a text are the prompt's.
        encoder: The tuned encoder.
        tokenizer: What made the tokens.
        files: What the pretrained model was read from.
        events: Positive events of training, where the task says that it reads them; else None.
    """

    catalog: Catalog
    number_words: Callable[[], npt.NDArray[np.int32]]
    prompt: int
    encoder: Encoder
    tokenizer: Any
    files: ModelFiles
    events: Interactions | None


class Task(nn.Module, abc.ABC):
    """Base of every way to pretrain; its parameters are heads, which are thrown away in the end.

    Args:
        parts: What it is made of.
    """

    def __init__(self, parts: TaskComponents) -> None:
        super().__init__()
        self.catalog, self.prompt = parts.catalog, parts.prompt
        self.keys = find_first_rows(parts.catalog)

    @abc.abstractmethod
    def split_examples(self, share: float, seed: int) -> tuple[Ints, Ints]:
        """Numbers of the examples that train and of those that are held out.

        Args:
            share: Held out.
            seed: Of the sample; the same examples are held out whatever trains.
        """

    @abc.abstractmethod
    def make_batch(self, at: Ints, seed: int, epoch: int) -> TextBatch:
        """The batch of some examples, on the host; drawn from (seed, epoch, example) alone."""

    @abc.abstractmethod
    def compute_loss(self, encoder: Encoder, batch: TextBatch, work: FlopCounter) -> Loss:
        """The loss of a batch."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What an epoch reads, and by which head, in words."""

    def encode(self, encoder: Encoder, tokens: Ragged, work: FlopCounter) -> Tensor:
        """(N, V) vectors of texts."""
        self.count(encoder, tokens, work)
        vectors: Tensor = encoder(tokens)
        return vectors

    def count(self, encoder: Encoder, tokens: Ragged, work: FlopCounter) -> None:
        """Counts a pass of texts through the encoder, where training makes it."""
        if work.counting:
            work.count_texts(encoder, None, encoder.compute_lengths(tokens.sizes))


class TextTask(Task):
    """Base of a way to pretrain on single texts: each different one is an example.

    Args:
        parts: What it is made of.
        least: Fewest tokens of a text, those of the prompt not counted; shorter ones are left out.

    Raises:
        DataError: Fewer than three texts are left.
    """

    def __init__(self, parts: TaskComponents, least: int = 1) -> None:
        super().__init__(parts)
        rows = np.flatnonzero(self.keys == np.arange(len(self.keys)))
        sizes = np.asarray(self.catalog.count_tokens(torch.from_numpy(rows)), dtype=np.int64)
        self.rows: Ints = rows[sizes >= parts.prompt + least]
        if len(self.rows) < 3:
            raise DataError(
                f"pretraining needs three different item texts of {least} or more tokens, and the "
                f"data has {len(self.rows)}; check data.source.item_text."
            )

    def split_examples(self, share: float, seed: int) -> tuple[Ints, Ints]:
        """Catalog rows that train and that are held out."""
        return split_share(self.rows, share, seed)

    def describe(self) -> str:
        """How many texts there are."""
        return f"{len(self.rows):,} different texts of {len(self.keys):,} items"


def find_first_rows(catalog: Catalog) -> Ints:
    """(I,) the first catalog row with the same tokens as each."""
    first: dict[bytes, int] = {}
    rows = [first.setdefault(text, row) for row, text in enumerate(catalog.iter_contents())]
    return np.array(rows, dtype=np.int64)


def split_share(at: Ints, share: float, seed: int) -> tuple[Ints, Ints]:
    """Numbers in two, in their order: all but a seeded share, and the share.

    Two at least are in the second part: one alone has nothing to be told from.

    Args:
        at: (N,) of which there are three or more.
        share: Of the second part.
        seed: Of the sample.
    """
    count = min(max(2, round(share * len(at))), len(at) - 1)
    held = np.zeros(len(at), dtype=np.bool_)
    held[np.random.default_rng([seed, 3]).permutation(len(at))[:count]] = True
    return at[~held], at[held]


def draw(seed: int, epoch: int, at: Ints, sizes: Sequence[int]) -> Floats:
    """(sum of sizes,) numbers from 0 to below 1 for some examples, whatever stands beside them."""
    parts = [
        np.random.default_rng([seed, epoch, number]).random(size)
        for number, size in zip(at.tolist(), sizes, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def compute_contrast(
    left: Tensor, right: Tensor, keep: Tensor, temperature: float, bias: Tensor | None = None
) -> Loss:
    """Softmax of each row's own column among those that are kept; the cosine is the score.

    Args:
        left: (N, V) vectors.
        right: (N, V) vectors; the own one of each row stands at its place.
        keep: (N, N) bool, true also on the diagonal.
        temperature: That cosines are divided by.
        bias: (N,) what is taken from the scores of a column; None: nothing.
    """
    logits = F.normalize(left.float(), dim=-1) @ F.normalize(right.float(), dim=-1).T / temperature
    if bias is not None:
        logits = logits - bias
    own = torch.arange(len(left), device=left.device)
    return compute_softmax_loss(logits, own, keep, 0.0)
