"""Finds the parts of a transformers model that tuning needs, without a table of families.

The layer stack is recognised by its layer class, the attention by its class name, and the two
linear maps that write to the residual stream by their order inside a layer. A model that does not
fit is refused rather than guessed at.
"""

from __future__ import annotations

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from recsys.errors import ConfigError

LINEAR = (nn.Linear, Conv1D)


def layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Finds the one stack of transformer layers.

    Args:
        model: A bare transformers model (no head).

    Returns:
        The stack's path in the model, and the stack.

    Raises:
        ConfigError: The model has no such stack, or several.
    """
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 0
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    if len(found) != 1:
        paths = ", ".join(path for path, _ in found) or "none"
        raise ConfigError(
            f"encoder: {type(model).__name__} must have exactly one stack of transformer layers "
            f"but has {len(found)} ({paths}); choose an encoder-only or decoder-only text model."
        )
    return found[0]


def linears(layer: nn.Module) -> list[str]:
    """Names of the linear maps inside a layer, in the order in which they were registered."""
    return [name for name, module in layer.named_modules() if isinstance(module, LINEAR)]


def attention_linears(layer: nn.Module) -> list[str]:
    """Names of the linear maps of a layer's attention: queries, keys, values and output.

    Raises:
        ConfigError: The layer has no attention module with linear maps, or several.
    """
    owners = [
        name for name, child in layer.named_children() if type(child).__name__.endswith("Attention")
    ]
    if len(owners) != 1:
        raise ConfigError(
            f"encoder: a {type(layer).__name__} must have exactly one attention module but has "
            f"{len(owners)}; choose another model or tuning=full."
        )
    inside = [name for name in linears(layer) if name.startswith(owners[0] + ".")]
    if not inside:
        raise ConfigError(
            f"encoder: the attention of {type(layer).__name__} has no linear map; choose another "
            "model or tuning=full."
        )
    return inside


def writers(layer: nn.Module) -> tuple[str, str]:
    """The two linear maps that write to the residual stream.

    Returns:
        Name of the attention's output map and of the feed-forward's output map.

    Raises:
        ConfigError: There is no single attention, or no feed-forward map after it.
    """
    inside = attention_linears(layer)
    last = linears(layer)[-1]
    if last in inside:
        raise ConfigError(
            f"encoder: {type(layer).__name__} has no feed-forward map after its attention; "
            "choose another model or tuning=full."
        )
    return inside[-1], last


def chosen(depth: int, layers: int | str) -> range:
    """The layers that a tuning method touches.

    Args:
        depth: Number of layers of the model.
        layers: "all", or N for the last N.

    Raises:
        ConfigError: Another word, or a number outside 1 to depth.
    """
    if layers == "all":
        return range(depth)
    if isinstance(layers, str | bool):
        raise ConfigError(
            f'tuning.layers is {layers!r}; write "all" or a number from 1 to {depth}.'
        )
    if not 1 <= layers <= depth:
        raise ConfigError(
            f"tuning.layers is {layers} but the encoder has {depth} layers; write a number from "
            f'1 to {depth} or "all".'
        )
    return range(depth - layers, depth)


def layer_of(model: nn.Module) -> dict[str, int]:
    """Depth of every parameter: -1 embeddings, 0 to depth - 1 the layers, depth what follows.

    A parameter outside the stack counts as an embedding when it is registered before the stack or
    belongs to an `nn.Embedding` (relative position tables may be registered after it).
    """
    path, stack = layer_stack(model)
    tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    out: dict[str, int] = {}
    passed = False
    for name, _ in model.named_parameters():
        if name.startswith(path + "."):
            passed = True
            out[name] = int(name[len(path) + 1 :].split(".", 1)[0])
        else:
            table = name.rpartition(".")[0] in tables
            out[name] = len(stack) if passed and not table else -1
    return out
