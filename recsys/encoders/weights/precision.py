"""In which precision an encoder's weights are held, and in which it computes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from recsys.encoders.pretrained.source import ModelFiles, list_weight_types
from recsys.encoders.weights.quantized import Quantize, count_parameters, restore_weights
from recsys.errors import ConfigError

Dtype = Literal["auto", "fp32", "bf16"]


def choose_half(dtype: Dtype, files: ModelFiles) -> bool:
    """Whether weights are held in bf16.

    Args:
        dtype: As in `encoder.dtype`; auto: as the file has most of them.
        files: The model's.
    """
    if dtype != "auto":
        return dtype == "bf16"
    sizes = list_weight_types(files.folder)
    return bool(sizes) and max(sizes, key=lambda kind: sizes[kind]) == "BF16"


def compute_in(half: bool, device: torch.device) -> AbstractContextManager[object]:
    """Computes in bf16, weights that are held in fp32 included; or as it is around.

    Args:
        half: Whether it is bf16.
        device: Where.
    """
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def check_trainable(model: nn.Module, names: Iterable[str]) -> None:
    """Refuses to train weights that are held as codes.

    Args:
        model: Whose they are.
        names: Of parameters that are to train.

    Raises:
        ConfigError: One is.
    """
    own = dict(model.named_parameters())
    codes = sorted(name for name in names if not own[name].is_floating_point())
    if codes:
        raise ConfigError(
            f"encoder.quantize holds {codes[0]} as codes, which cannot train; choose "
            "tuning=lora, ia3, adapter or prefix, which train what they add, or set "
            "encoder.quantize=none."
        )


@torch.no_grad()
def hold_in_fp32(parameter: nn.Parameter) -> None:
    """Makes fp32 of a parameter that is held in bf16; any other stays as it is."""
    if parameter.dtype == torch.bfloat16:
        parameter.data = parameter.data.float()


@torch.no_grad()
def hold_in_bf16(model: nn.Module) -> None:
    """Makes bf16 of all parameters of a model that are held in fp32, those that train too."""
    for parameter in model.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()


def restore_precision(model: nn.Module) -> None:
    """Makes fp32 of all parameters that are held in bf16, or as codes."""
    restore_weights(model)
    for parameter in model.parameters():
        hold_in_fp32(parameter)


def compute_weights_mb(model: nn.Module) -> float:
    """Size of a model's parameters as they are held, in MB (10^6 bytes)."""
    return sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6


def describe_weights(model: nn.Module, in_bf16: bool, quantize: Quantize) -> str:
    """How a model's weights are held, in words, where that is not all of them in fp32."""
    if not in_bf16 and quantize == "none":
        return ""
    rest = "bf16" if in_bf16 else "fp32"
    what = rest if quantize == "none" else f"{quantize} (the rest in {rest})"
    whole = 4 * count_parameters(model) / 1e6
    return f"weights in {what}: {compute_weights_mb(model):.0f} MB, in fp32 {whole:.0f} MB"
