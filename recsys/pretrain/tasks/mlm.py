"""Masked tokens: which are hidden and how, and the cross-entropy of what they were."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from recsys.encoders.encoder import Encoder
from recsys.errors import ConfigError
from recsys.pretrain.tasks import heads
from recsys.pretrain.tasks.base import Floats, Ints, TaskComponents, TextTask, draw
from recsys.pretraining.mlm import Config
from recsys.recommender.flops import FlopCounter
from recsys.types import Loss, Ragged, TextBatch

MASKED, REPLACED = 0.8, 0.9
"""Of the chosen tokens, those below the first are masked, those below the second replaced."""


class Task(TextTask):
    """An example is a text, of which other tokens are hidden in each epoch.

    Args:
        parts: What it is made of.
        config: Its settings.

    Raises:
        ConfigError: The tokenizer has no mask token, as those of decoders.
        DataError: Fewer than three texts.
    """

    def __init__(self, parts: TaskComponents, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        mask = parts.tokenizer.mask_token_id
        if mask is None:
            raise ConfigError(
                f"pretraining=mlm hides tokens behind a mask token, and the tokenizer of "
                f"{parts.files.spec} has none; set pretraining to co_occurrence, simcse or tsdae."
            )
        self.mask = int(mask)
        special = set(parts.tokenizer.all_special_ids)
        ordinary = [i for i in sorted(parts.tokenizer.get_vocab().values()) if i not in special]
        self.ordinary: Ints = np.array(ordinary, dtype=np.int64)
        encoder = parts.encoder
        self.room = encoder.max_length - sum(
            map(len, (encoder.specials.prefix, encoder.specials.suffix))
        )
        own = heads.load_own_head(parts.files, encoder)
        self.own = own is not None
        self.head = own or heads.FreshHead(encoder.width, heads.get_embeddings(encoder))

    def make_batch(self, at: Ints, seed: int, epoch: int) -> TextBatch:
        """Some texts with hidden tokens, where these are in the states, and what they were."""
        tokens = self.catalog.gather_tokens(torch.from_numpy(at))
        ids, sizes = tokens.values.numpy().copy(), np.array(tokens.sizes)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        inside = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chance = self._draw_three(at, seed, epoch, sizes)
        # The encoder cuts what it has no room for; a prompt is the same before all texts.
        free = (inside >= self.prompt) & (inside < self.room)
        ranked = np.where(free, chance[0], 2.0)
        chosen = free & (ranked < self.config.share)
        # A short text would often have none: then the one that was nearest to being chosen.
        lowest = np.full(len(sizes), 2.0)
        np.minimum.at(lowest, owner, ranked)
        chosen |= free & (ranked == lowest[owner])
        targets = ids[chosen]
        other = self.ordinary[(chance[2] * len(self.ordinary)).astype(np.int64)]
        replaced = np.where(chance[1] < MASKED, self.mask, other)
        ids = np.where(chosen & (chance[1] < REPLACED), replaced, ids)
        return TextBatch(
            Ragged(torch.from_numpy(ids), tokens.sizes),
            torch.from_numpy(at),
            {
                "text": torch.from_numpy(owner[chosen]),
                "place": torch.from_numpy(inside[chosen]),
                "targets": torch.from_numpy(targets),
            },
        )

    def _draw_three(self, at: Ints, seed: int, epoch: int, sizes: Ints) -> Floats:
        """(3, sum of sizes): whether a token is chosen, what becomes of it, and by what."""
        flat = draw(seed, epoch, at, (3 * sizes).tolist())
        parts = np.split(flat, np.cumsum(3 * sizes)[:-1])
        return np.concatenate([part.reshape(3, -1) for part in parts], axis=1)

    def compute_loss(self, encoder: Encoder, batch: TextBatch, work: FlopCounter) -> Loss:
        """Sum over the hidden tokens."""
        self.count(encoder, batch.tokens, work)
        states = encoder.compute_states(batch.tokens)
        starts = torch.tensor(states.offsets[:-1], device=states.values.device)
        text, place, targets = (batch.parts[name] for name in ("text", "place", "targets"))
        at = starts[text] + place + len(encoder.specials.prefix)
        scores = self.head(states.values[at], heads.get_embeddings(encoder), work)
        total = F.cross_entropy(scores.float(), targets, reduction="sum")
        return Loss(total, torch.tensor(len(targets), device=total.device))

    def describe(self) -> str:
        """How many texts there are, and which head tells tokens."""
        what = (
            "the head of the model's own files"
            if self.own
            else ("a fresh head over its embeddings: the model's files have none")
        )
        return f"{super().describe()}; masked tokens are told by {what}"
