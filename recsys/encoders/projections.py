"""What the linear maps inside a layer do, told by their names and their order."""

from __future__ import annotations

from typing import Literal

from torch import nn

from recsys.encoders.layers import find_feed_forward_output, list_attention_linears, list_linears
from recsys.errors import ConfigError

Projection = Literal["query", "key", "value"]


def find_projection(layer: nn.Module, kind: Projection, method: str) -> str:
    """Name of the map that makes an attention's queries, keys or values.

    Args:
        layer: One layer of the stack.
        kind: Which of the three; its map is known by its first letter (`k_proj`, `key`, `k_lin`).
        method: What asks, as the user wrote it, for the error message.

    Raises:
        ConfigError: There is no such map, for instance because one map makes all three.
    """
    inside = list_attention_linears(layer)
    found = [name for name in inside if name.rpartition(".")[2].startswith(kind[0])]
    if len(found) != 1:
        raise ConfigError(
            f"{method} needs a map of its own for the attention's {kind}, and a "
            f"{type(layer).__name__} has {', '.join(inside)}; choose another model, or tuning=lora."
        )
    return found[0]


def find_feed_forward_input(layer: nn.Module, method: str) -> str:
    """Name of the feed-forward's first map, where there is just one before its last.

    Args:
        layer: One layer of the stack.
        method: What asks, as the user wrote it, for the error message.

    Raises:
        ConfigError: There are several (a gated feed-forward), or none.
    """
    attention, last = list_attention_linears(layer), find_feed_forward_output(layer)
    found = [name for name in list_linears(layer) if name not in attention and name != last]
    if len(found) != 1:
        raise ConfigError(
            f"{method} needs a feed-forward of two maps, and a {type(layer).__name__} has "
            f"{len(found) + 1}; choose another model, or another tuning."
        )
    return found[0]


def list_norms(layer: nn.Module) -> list[str]:
    """Names of the normalisations inside a layer, in the order in which they were registered."""
    return [name for name, m in layer.named_modules() if type(m).__name__.endswith("Norm")]
