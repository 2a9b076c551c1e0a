"""Learned keys and values in front of an attention's own: prefix tuning in the layers that have it.

Li and Liang, ACL 2021 (section 4.2). They are handed to the attention in the place of a cache of
earlier tokens, layer by layer: a layer without them sees none, so that states below the lowest
prefix are those of the pretrained model and can be kept. Tokens keep their positions, where a cache
of the whole model would move them on: a pretrained position table stays usable up to its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.encoders.layers import find_layer_stack, list_attention_linears, list_attentions
from recsys.errors import ConfigError

_TAKES = ("hidden_states", "attention_mask")
_PLACES = (
    "cache",
    "past_key_values",
)  # of earlier tokens: the name from transformers 5.24 on first


class PrefixAttention(nn.Module):
    """An attention that sees learned keys and values before those of the tokens.

    Args:
        base_layer: The pretrained attention; see `find_attention`.
        prefix: Gives (P, 2 K) keys and values for places (P,): PEFT's `PrefixEncoder` of one layer.
        length: P, number of learned keys.
        heads: Number of the attention's key heads; K is their width together.
    """

    def __init__(self, base_layer: nn.Module, prefix: nn.Module, length: int, heads: int) -> None:
        super().__init__()
        self.base_layer, self.prefix = base_layer, prefix
        self.length, self.heads = length, heads
        self.causal = is_causal(base_layer)

    def forward(self, *args: object, **named: object) -> object:
        """What the attention gives for its own arguments, whatever their order."""
        places = torch.arange(self.length, device=next(self.prefix.parameters()).device)
        learned = self.prefix(places).view(self.length, 2, self.heads, -1).permute(1, 2, 0, 3)
        call = _bind_arguments(self.base_layer, args, named)
        states, mask = call.arguments["hidden_states"], call.arguments.get("attention_mask")
        call.arguments[find_cache_argument(self.base_layer)] = _PrefixKeyValues(
            learned[0], learned[1]
        )
        call.arguments["attention_mask"] = widen_mask(mask, states, self.length, self.causal)
        return self.base_layer(*call.args, **call.kwargs)


class _PrefixKeyValues:
    """Stands where an attention finds the keys and values of earlier tokens.

    Args:
        keys: (heads, P, width of a head).
        values: (heads, P, width of a head).
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(
        self, keys: Tensor, values: Tensor, *place: object, kwargs: object = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (N, heads, P + L, width) from the tokens' (N, heads, L, width)."""
        return _prepend(self.keys, keys), _prepend(self.values, values)


def _prepend(front: Tensor, own: Tensor) -> Tensor:
    """(N, heads, P + L, width) from (heads, P, width) and (N, heads, L, width)."""
    return torch.cat([front.to(own.dtype).expand(len(own), -1, -1, -1), own], dim=-2)


class _KeyValueRecorder:
    """Stands there too, and notes what the tokens bring."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def update(
        self, keys: Tensor, values: Tensor, *place: object, kwargs: object = None
    ) -> tuple[Tensor, Tensor]:
        """Notes keys and values (N, heads, L, width) and gives them back."""
        self.pairs.append((keys.detach(), values.detach()))
        return keys, values


def widen_mask(mask: object, states: object, length: int, causal: bool) -> Tensor | None:
    """The mask of an attention with so many more keys at the front, which every token sees.

    Args:
        mask: (N, 1, L, L) true or 0 where a token is seen; None: all are, or all up to one's own.
        states: (N, L, D) what the attention reads.
        length: P, number of keys at the front.
        causal: Whether no mask means that a token sees none after it.

    Returns:
        (N, 1, L, P + L), or None where everything is seen.

    Raises:
        ConfigError: The mask is of another kind.
    """
    if mask is None:
        if not causal:
            return None
        # Without a mask the attention would count the places at the front as earlier tokens only
        # where keys and queries are as many.
        rows = states.shape[-2] if isinstance(states, Tensor) else 0
        device = states.device if isinstance(states, Tensor) else None
        seen = torch.ones(rows, length + rows, dtype=torch.bool, device=device)
        return seen.tril(length)[None, None]
    if not isinstance(mask, Tensor) or mask.ndim != 4:
        raise ConfigError(
            "tuning=prefix knows the attention masks of sdpa and eager only; load the model with "
            "one of the two, or choose another tuning."
        )
    free = True if mask.dtype == torch.bool else 0.0
    return F.pad(mask, (length, 0), value=free)


def find_attention(layer: nn.Module, model: nn.Module) -> str:
    """Name of a layer's attention, where it takes keys and values from outside.

    Raises:
        ConfigError: It does not.
    """
    list_attention_linears(layer)  # raises for a layer with several attentions
    name = list_attentions(layer)[0]
    module = layer.get_submodule(name)
    takes = set(_get_signature(type(module).forward).parameters)
    if not set(_TAKES) <= takes or not takes & set(_PLACES):
        raise ConfigError(_describe_unsupported(model))
    return name


def find_cache_argument(module: nn.Module) -> str:
    """The argument in which an attention takes keys and values of earlier tokens."""
    takes = _get_signature(type(module).forward).parameters
    return next(name for name in _PLACES if name in takes)


def is_causal(module: nn.Module) -> bool:
    """Whether an attention without a mask hides later tokens, as the attention itself says it.

    Raises:
        ConfigError: It does not say so.
    """
    told = {bool(vars(m)["is_causal"]) for m in module.modules() if "is_causal" in vars(m)}
    if len(told) != 1:
        raise ConfigError(
            f"tuning=prefix: {type(module).__name__} does not say whether it is causal; choose "
            "another model or another tuning."
        )
    return told.pop()


@torch.no_grad()
def record_keys_values(
    model: nn.Module, layers: Sequence[int], ids: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (1, heads, L, width of a head) that chosen layers make of a text.

    Args:
        model: A bare transformers model.
        layers: Which layers.
        ids: (1, L) token ids, special tokens included.

    Raises:
        ConfigError: An attention leaves what stands in the place of earlier tokens alone.
    """
    _, stack = find_layer_stack(model)
    seen, handles = _KeyValueRecorder(), []

    def pass_recorder(
        module: nn.Module, args: tuple[object, ...], named: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        call = _bind_arguments(module, args, named)
        call.arguments[find_cache_argument(module)] = seen
        return call.args, call.kwargs

    for i in layers:
        module = stack[i].get_submodule(find_attention(stack[i], model))
        handles.append(module.register_forward_pre_hook(pass_recorder, with_kwargs=True))
    was = model.training
    model.eval()
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    if len(seen.pairs) != len(layers):
        raise ConfigError(_describe_unsupported(model))
    return seen.pairs


def _bind_arguments(
    module: nn.Module, args: tuple[object, ...], named: dict[str, object]
) -> inspect.BoundArguments:
    """Arguments of a module's forward by their names."""
    return _get_signature(type(module).forward).bind(*args, **named)


@lru_cache
def _get_signature(forward: Callable[..., object]) -> inspect.Signature:
    """What the forward of a class takes, besides the module itself."""
    whole = inspect.signature(forward)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


def _describe_unsupported(model: nn.Module) -> str:
    return (
        "tuning=prefix hands learned keys and values to the attention, and that of "
        f"{type(model).__name__} takes none from outside; choose a model of the BERT, RoBERTa, "
        "Llama or Qwen families, or another tuning."
    )
