"""TSDAE: which words are left out, and the cross-entropy of the text that a vector gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from recsys.encoders.encoder import Encoder
from recsys.pretrain.tasks import heads
from recsys.pretrain.tasks.base import Ints, TaskComponents, TextTask, draw
from recsys.pretrain.tasks.decoder import VectorDecoder
from recsys.pretraining.tsdae import Config
from recsys.recommender.flops import FlopCounter
from recsys.types import Loss, Ragged, TextBatch


class Task(TextTask):
    """An example is a text, of which other words are left out in each epoch.

    Args:
        parts: What it is made of.
        config: Its settings.

    Raises:
        DataError: Fewer than three texts.
    """

    def __init__(self, parts: TaskComponents, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        encoder, special = parts.encoder, parts.encoder.specials
        # What begins and ends a text for the decoder; both are one where a family has no others.
        self.first = special.prefix[0] if special.prefix else special.pad
        self.last = special.suffix[-1] if special.suffix else special.pad
        self.room = encoder.max_length - len(special.prefix) - len(special.suffix)
        self.words = parts.number_words()
        sizes = self.catalog.count_tokens(torch.arange(len(self.catalog)))
        self.offsets: Ints = np.concatenate([[0], np.cumsum(sizes)])
        count = int(getattr(encoder.model.config, "num_attention_heads", 0) or 1)
        self.decoder = VectorDecoder(
            encoder.width,
            encoder.vector_width,
            count if encoder.width % count == 0 else 1,
            config.decoder_layers,
            self.room + 1,
            heads.get_embeddings(encoder),
        )

    def make_batch(self, at: Ints, seed: int, epoch: int) -> TextBatch:
        """Some texts with words left out, and the whole texts, padded with -1."""
        whole = self.catalog.gather_tokens(torch.from_numpy(at))
        chances = draw(seed, epoch, at, list(whole.sizes))
        left: list[torch.Tensor] = []
        begin = 0
        for row, ids in zip(at.tolist(), whole.split(), strict=True):
            words = self.words[self.offsets[row] : self.offsets[row + 1]]
            chance = chances[begin : begin + len(ids)]
            begin += len(ids)
            left.append(ids[torch.from_numpy(keep_words(words, chance, self.config.delete))])
        longest = min(max(whole.sizes), self.room) + 1
        targets = torch.full((len(at), longest), -1)
        for number, ids in enumerate(whole.split()):
            kept = ids[: longest - 1]
            targets[number, : len(kept)] = kept
            targets[number, len(kept)] = self.last
        return TextBatch(Ragged.from_sequences(left), torch.from_numpy(at), {"targets": targets})

    def compute_loss(self, encoder: Encoder, batch: TextBatch, work: FlopCounter) -> Loss:
        """Sum over the tokens of the whole texts, and of what ends each."""
        vectors = self.encode(encoder, batch.tokens, work)
        targets = batch.parts["targets"]
        kept = targets >= 0
        known = F.pad(targets[:, :-1].clamp(min=0), (1, 0), value=self.first)
        table = heads.get_embeddings(encoder)
        scores = self.decoder(vectors, known, kept, table, work)
        total = F.cross_entropy(scores.float(), targets[kept], reduction="sum")
        return Loss(total, kept.sum())

    def describe(self) -> str:
        """How many texts there are, and what writes them."""
        layers = len(self.decoder.layers)
        return (
            f"{super().describe()}; written from their vectors by a decoder of {layers} "
            f"layer{'s' if layers > 1 else ''} over the encoder's embeddings"
        )


def keep_words(words: npt.NDArray[np.int32], chance: np.ndarray, delete: float) -> np.ndarray:
    """(L,) bool, tokens of the words that stay: one word at least, and all of a prompt.

    Args:
        words: (L,) number of each token's word; -1 in a prompt, which stays.
        chance: (L,) from 0 to below 1; that of a word's first token decides.
        delete: Share of words that go.
    """
    own = words >= 0
    _, first, back = np.unique(words, return_index=True, return_inverse=True)
    of_word = chance[first]
    stays = of_word >= delete
    ordinary = own[first]
    if ordinary.any() and not stays[ordinary].any():
        stays |= of_word == of_word[ordinary].max()
    kept: np.ndarray = stays[back] | ~own
    return kept
