"""An encoder of fewer layers: some of those that a run has, and a map to the run's vectors.

Layers are taken at even distances up to the last one, as in Sanh et al., DistilBERT (2019),
section 3, and embeddings stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import count_passes, find_layer_stack
from recsys.errors import ConfigError
from recsys.types import Ragged

RIDGE = 1e-3
"""Of the first map, as a share of the mean square of what it reads."""


class Student(nn.Module):
    """An encoder and the linear map from its pooled states to the vectors of a run.

    Args:
        encoder: Without dense maps.
        width: D, of the run's vectors.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.map = nn.Linear(encoder.vector_width, width)

    def forward(self, tokens: Ragged) -> Tensor:
        """(N, D) vectors of texts given as raw token ids."""
        vectors: Tensor = self.map(self.encoder(tokens).float())
        return vectors

    @torch.no_grad()
    def fit_map(self, pooled: Tensor, targets: Tensor) -> None:
        """Sets the map to the least squares of texts, slightly shrunk.

        Args:
            pooled: (N, V) what the encoder gives of the texts.
            targets: (N, D) the vectors that they are to have.
        """
        x, y = pooled.double(), targets.double()
        means = x.mean(0), y.mean(0)
        x, y = x - means[0], y - means[1]
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weight = torch.linalg.solve(gram, x.T @ y).T
        self.map.weight.copy_(weight)
        self.map.bias.copy_(means[1] - weight @ means[0])


def select_places(depth: int, layers: int) -> list[int]:
    """Which of `depth` layers stay, at even distances up to the last."""
    return [(n + 1) * depth // layers - 1 for n in range(layers)]


def cut_encoder(encoder: Encoder, layers: int, pooling: Sequence[str]) -> Encoder:
    """A copy with fewer layers, without the dense maps behind its pooling.

    Args:
        encoder: With nothing in it that a tuning method added.
        layers: How many stay.
        pooling: Names of its pooling.

    Raises:
        ConfigError: It has fewer, or uses one for several.
    """
    name, depth = type(encoder.model).__name__, encoder.depth
    if count_passes(encoder.model) > depth:
        raise ConfigError(
            f"layers={layers}: {name} passes one layer several times, so that none can be left out."
        )
    if layers >= depth:
        raise ConfigError(
            f"layers={layers}: the encoder has {depth}; give fewer, or leave layers out for all."
        )
    model = copy.deepcopy(encoder.model)
    path, stack = find_layer_stack(model)
    kept = select_places(depth, layers)
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.ModuleList(stack[place] for place in kept))
    _shorten_config(model, kept, depth)
    return Encoder(
        model,
        encoder.specials,
        pooling,
        encoder.max_length,
        encoder.chunk_tokens,
        skips=encoder.skips,
    )


def _shorten_config(model: nn.Module, kept: list[int], depth: int) -> None:
    """Says in the model's configuration which layers it has now."""
    config = model.config
    config.num_hidden_layers = len(kept)  # type: ignore[union-attr]
    kinds = getattr(config, "layer_types", None)  # of families whose layers differ in attention
    if isinstance(kinds, list) and len(kinds) == depth:
        config.layer_types = [kinds[place] for place in kept]  # type: ignore[union-attr]
