"""Puts a method of the PEFT library into an encoder, and takes it out again by merging."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.weights.precision import restore_precision
from recsys.encoders.weights.quantized import is_quantized
from recsys.errors import ConfigError
from recsys.types import Ragged

# What the library raises when a setting does not fit a model.
REFUSALS = (
    ValueError,
    TypeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,  # and NotImplementedError
)


_ADDING = ("LORA", "IA3", "BOTTLENECK")
"""Methods that take what a map gives, and not its weights."""


def inject_method(encoder: Encoder, settings: Any, method: str) -> set[str]:  # noqa: ANN401 - untyped
    """Wraps the target modules of a method, in place.

    The library's own `inject_adapter_in_model` refuses methods whose layers share state, because
    it does not hand out the tuner that holds it. Every layer holds that state too, which is all
    that a forward pass, a copy and named parameters need.

    Args:
        encoder: The encoder.
        settings: The method's `PeftConfig`, with full names of the target modules.
        method: What asks, as the user wrote it, for the error message.

    Returns:
        Names of the parameters that the method added and trains.

    Raises:
        ConfigError: The method cannot take these settings or these modules.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    _check_codes(encoder, settings, method)
    before = {name for name, _ in encoder.named_parameters()}
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[settings.peft_type]
    try:
        with warnings.catch_warnings():
            # It says so of norms, which a method for norms is there for.
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            tuner(encoder.model, settings, adapter_name="default")
    except REFUSALS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(f"{method}: {reason}.") from error
    # The library renames what it wraps: only what no old name explains is new.
    return {
        name
        for name, p in encoder.named_parameters()
        if p.requires_grad and name.replace(".base_layer.", ".") not in before
    }


def _check_codes(encoder: Encoder, settings: Any, method: str) -> None:  # noqa: ANN401 - untyped
    """Refuses methods that read the weights that they change, where those are codes.

    Raises:
        ConfigError: It is one.
    """
    kind = str(settings.peft_type).rpartition(".")[2]
    reads = kind not in _ADDING or (kind == "LORA" and settings.use_dora)
    if reads and is_quantized(encoder.model):
        raise ConfigError(
            f"{method}: {'DoRA' if kind == 'LORA' else kind} reads the weights that it changes, "
            "which encoder.quantize holds as codes; choose tuning=lora (without dora), ia3, "
            "adapter or prefix, or set encoder.quantize=none."
        )


def list_wrapped_layers(encoder: Encoder) -> list[tuple[str, Any]]:
    """Name in the model and module of every wrapped map."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    named = encoder.model.named_modules()
    return [(name, module) for name, module in named if isinstance(module, BaseTunerLayer)]


def make_merger(encoder: Encoder) -> Callable[[], None] | None:
    """Folds an injected method into the weights, or None where the method cannot.

    Only trying tells whether it can; a copy of one wrapped map is tried.
    """
    tried = copy.deepcopy(list_wrapped_layers(encoder)[0][1])
    restore_precision(tried)
    try:
        tried.merge(safe_merge=True)
    except REFUSALS:
        return None
    return lambda: merge_method(encoder)


def merge_method(encoder: Encoder) -> None:
    """Folds what was injected into the weights and puts the plain modules back in their places.

    The weights are in fp32 then: in bf16 most of an update would be rounded away.
    """
    encoder.restore_precision()
    for name, module in list_wrapped_layers(encoder):
        module.merge(safe_merge=True)
        encoder.model.set_submodule(name, module.get_base_layer())


def select_scales(encoder: Encoder, added: set[str]) -> set[str]:
    """Those added parameters that start at a constant other than zero: factors, not weights.

    Decay would switch off what they scale.
    """
    own = dict(encoder.named_parameters())
    return {name for name in added if _is_constant(own[name])}


def _is_constant(parameter: nn.Parameter) -> bool:
    values = parameter.detach()
    return bool(values.numel()) and bool((values == values.flatten()[0]).all() & values.any())


@torch.no_grad()
def compute_probe_states(encoder: Encoder) -> Tensor:
    """Token states (L, D) of a short text, to see whether a method leaves the output as it was."""
    weight = encoder.model.get_input_embeddings().weight  # type: ignore[operator]
    ids = torch.arange(8, device=weight.device) % weight.shape[0]
    was = encoder.training
    encoder.eval()
    try:
        return encoder.compute_states(Ragged(ids, (len(ids),))).values
    finally:
        encoder.train(was)
