"""Where a run trains, and in which precision."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Literal

import torch

from recsys.errors import ConfigError

Chosen = Literal["fp32", "bf16-mixed", "bf16-true", "fp16-mixed"]
Asked = Literal["auto", Chosen]
NAMES: dict[Asked, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    # The encoder's weights are made bf16 where it is built; what stays in fp32 computes as mixed.
    "bf16-true": "bf16-mixed",
    "fp16-mixed": "16-mixed",
}


def choose_accelerator(asked: Literal["auto", "cpu", "gpu"]) -> Literal["cpu", "gpu"]:
    """Where to train; auto is the GPU where CUDA finds one, else the CPU."""
    if asked != "auto":
        return asked
    return "gpu" if torch.cuda.is_available() else "cpu"


def count_gpus() -> int:
    """How many GPUs the Trainer can use here."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


def choose_precision(asked: Asked, accelerator: str) -> Chosen:
    """The precision to train in; auto is bf16-mixed on a GPU that has it, else fp32.

    A CPU without bf16 instructions is 10 to 25 times slower in bf16, so auto never picks it there.
    """
    if asked != "auto":
        return asked
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"


def choose_compilation(
    asked: Literal["off", "auto", "on"], accelerator: str
) -> Literal["off", "on"]:
    """Whether to compile the encoder's layers; auto does on a GPU.

    On a CPU it gains nothing: products of matrices bound the step, and they stay as they are.

    Raises:
        ConfigError: It was asked for, and what compiles is not installed.
    """
    if asked == "off" or (asked == "auto" and accelerator == "cpu"):
        return "off"
    if accelerator == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError("encoder.compile=on needs a C++ compiler; install g++ or set it to off.")
    if accelerator != "cpu" and importlib.util.find_spec("triton") is None:
        raise ConfigError(
            "encoder.compile needs triton on a GPU; pip install triton, or set it to off."
        )
    return "on"
