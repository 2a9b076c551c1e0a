"""SimCSE: two passes of each text under different dropout, and the softmax over a batch."""

from __future__ import annotations

import torch
from torch import nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import find_layer_stack
from recsys.errors import ConfigError
from recsys.pretrain.tasks.base import Ints, TaskComponents, TextTask, compute_contrast
from recsys.pretraining.simcse import Config
from recsys.recommender.flops import FlopCounter
from recsys.types import Loss, Ragged, TextBatch


class Task(TextTask):
    """An example is a text; the others of its batch are its negatives.

    A validation has no dropout: both passes are alike, and its loss says how far texts lie apart.

    Args:
        parts: What it is made of.
        config: Its settings.

    Raises:
        ConfigError: The layers that train have no dropout, so that both passes would be alike.
        DataError: Fewer than three texts.
    """

    def __init__(self, parts: TaskComponents, config: Config) -> None:
        super().__init__(parts)
        self.config = config
        if not has_dropout(parts.encoder):
            raise ConfigError(
                "pretraining=simcse tells a text from others by itself under other dropout, and "
                "the layers that train have none; set regularization.dropout=0.1."
            )

    def make_batch(self, at: Ints, seed: int, epoch: int) -> TextBatch:
        """Some texts, each twice."""
        tokens = self.catalog.gather_tokens(torch.from_numpy(at))
        twice = Ragged(torch.cat([tokens.values] * 2), tokens.sizes * 2)
        return TextBatch(twice, torch.from_numpy(at), {})

    def compute_loss(self, encoder: Encoder, batch: TextBatch, work: FlopCounter) -> Loss:
        """The first passes against the second ones."""
        left, right = self.encode(encoder, batch.tokens, work).chunk(2)
        work.count_product(left, right)
        keep = torch.ones(len(left), len(left), dtype=torch.bool, device=left.device)
        return compute_contrast(left, right, keep, self.config.temperature)


def has_dropout(encoder: Encoder) -> bool:
    """Whether a layer that trains drops something in training."""
    for layer in find_layer_stack(encoder.model)[1][max(encoder.lowest_trained, 0) :]:
        for module in layer.modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                return True
            share = vars(module).get("attention_dropout")
            if isinstance(share, int | float) and share > 0:
                return True
    return False
