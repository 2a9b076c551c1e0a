"""Finds the parts of a transformers model that tuning needs, without a table of families.

The layer stack is recognised by what its layers are or hold, the attention by its class name, and
the two linear maps that write to the residual stream by their order inside a layer. A model that
does not fit raises an error; nothing is guessed.
"""

from __future__ import annotations

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from recsys.errors import ConfigError

LINEAR = (nn.Linear, Conv1D)


def find_layer_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Finds the one stack of transformer layers.

    It is the outermost list of modules of one make that are layers to the library, or that each
    hold an attention and linear maps (MPNet, XLNet, and ALBERT's groups of shared layers).

    Args:
        model: A bare transformers model (no head).

    Returns:
        The stack's path in the model, and the stack.

    Raises:
        ConfigError: The model has no such stack, or several.
    """
    found: list[tuple[str, nn.ModuleList]] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(outer + ".") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and not inside and _is_layer_stack(module):
            found.append((path, module))
    if len(found) != 1:
        paths = ", ".join(path for path, _ in found) or "none"
        raise ConfigError(
            f"encoder: {type(model).__name__} must have exactly one stack of transformer layers "
            f"but has {len(found)} ({paths}); choose an encoder-only or decoder-only text model."
        )
    return found[0]


def _is_layer_stack(modules: nn.ModuleList) -> bool:
    """Whether these are the layers of a transformer."""
    if not len(modules):
        return False
    if all(isinstance(layer, GradientCheckpointingLayer) for layer in modules):
        return True
    alike = len({type(layer) for layer in modules}) == 1
    return alike and all(list_attentions(layer) and list_linears(layer) for layer in modules)


def count_passes(model: nn.Module) -> int:
    """How many layers a text passes; more than the stack has where one is used again (ALBERT)."""
    own = len(find_layer_stack(model)[1])
    passes = getattr(model.config, "num_hidden_layers", own)  # not every family counts them so
    return max(own, int(passes))


def list_attentions(layer: nn.Module) -> list[str]:
    """Names of the attention modules inside a layer, of nested ones the outermost."""
    found: list[str] = []
    for name, module in layer.named_modules():
        inside = any(name.startswith(outer + ".") for outer in found)
        if name and not inside and type(module).__name__.endswith("Attention"):
            found.append(name)
    return found


def list_linears(layer: nn.Module) -> list[str]:
    """Names of the linear maps inside a layer, in the order in which they were registered."""
    return [name for name, module in layer.named_modules() if isinstance(module, LINEAR)]


def list_attention_linears(layer: nn.Module) -> list[str]:
    """Names of the linear maps of a layer's attention: queries, keys, values and output.

    Raises:
        ConfigError: The layer has no attention module with linear maps, or several.
    """
    owners = list_attentions(layer)
    if len(owners) != 1:
        raise ConfigError(
            f"encoder: a {type(layer).__name__} must have exactly one attention module but has "
            f"{len(owners)}; choose another model or tuning=full."
        )
    inside = [name for name in list_linears(layer) if name.startswith(owners[0] + ".")]
    if not inside:
        raise ConfigError(
            f"encoder: the attention of {type(layer).__name__} has no linear map; choose another "
            "model, tuning=lora with all linear maps, or tuning=full."
        )
    return inside


def find_output_linears(layer: nn.Module) -> tuple[str, str]:
    """The two linear maps that write to the residual stream.

    Returns:
        Name of the attention's output map and of the feed-forward's output map.

    Raises:
        ConfigError: There is no single attention, or no feed-forward map after it.
    """
    return list_attention_linears(layer)[-1], find_feed_forward_output(layer)


def find_feed_forward_output(layer: nn.Module) -> str:
    """The feed-forward's linear map that writes to the residual stream.

    An attention that holds its maps as plain parameters (XLNet) does not stand in the way.

    Raises:
        ConfigError: There is no single attention, or no feed-forward map after it.
    """
    owners = list_attentions(layer)
    if len(owners) != 1:
        list_attention_linears(layer)
    own = list_linears(layer)
    if not own or own[-1].startswith(owners[0] + "."):
        raise ConfigError(
            f"encoder: {type(layer).__name__} has no feed-forward map after its attention; "
            "choose another model or tuning=full."
        )
    return own[-1]


def select_layers(model: nn.Module, layers: int | str) -> range:
    """The layers that a tuning method touches.

    Args:
        model: A bare transformers model.
        layers: "all", or N for the last N.

    Returns:
        Their places in the stack.

    Raises:
        ConfigError: Another word, a number outside 1 to the depth, or some of the layers where
            one is used for several.
    """
    stack, depth = len(find_layer_stack(model)[1]), count_passes(model)
    if layers == "all":
        return range(stack)
    if isinstance(layers, str | bool):
        raise ConfigError(
            f'tuning.layers is {layers!r}; write "all" or a number from 1 to {depth}.'
        )
    if not 1 <= layers <= depth:
        raise ConfigError(
            f"tuning.layers is {layers} but the encoder has {depth} layers; write a number from "
            f'1 to {depth} or "all".'
        )
    if stack < depth:
        if layers < depth:
            raise ConfigError(
                f"tuning.layers is {layers}, and {type(model).__name__} passes {stack} layer"
                f"{'s' if stack > 1 else ''} {depth} times, so that the last {layers} cannot be "
                f"tuned apart; set tuning.layers={depth}, which is all, or tuning=frozen."
            )
        return range(stack)
    return range(depth - layers, depth)


def compute_parameter_depths(model: nn.Module) -> dict[str, int]:
    """Depth of every parameter: -1 embeddings, 0 to depth - 1 the layers, depth what follows.

    A parameter outside the stack counts as an embedding when it is registered before the stack or
    belongs to an `nn.Embedding` (relative position tables may be registered after it).
    """
    path, stack = find_layer_stack(model)
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


def count_positions(model: nn.Module) -> int | None:
    """How many tokens the model has positions for, or None where nothing bounds it."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            # RoBERTa counts from the place after its padding.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None or int(limit) < 1 else int(limit)  # XLNet says -1
