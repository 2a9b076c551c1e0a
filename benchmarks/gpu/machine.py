"""What the figures depend on, and the ceilings that they are set against."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import partial

import torch
from measuring import Row, Setting, measure_seconds
from page import PEAK

from recsys.encoders.packing.kernels import find_kernel

PACKAGES = ("torch", "transformers", "lightning", "peft", "polars", "bitsandbytes", "flash_attn")


def describe(setting: Setting) -> None:
    """Names, versions, the largest products and the fastest copy."""
    setting.measure("software", "versions", list_versions)
    setting.measure("device", "device", name_device, cuda=True)
    size = setting.pick(8192, 128)
    for name, dtype in ((PEAK, torch.bfloat16), ("fp16 product", torch.float16)):
        fill = partial(multiply, size=size, dtype=dtype)
        setting.measure("ceilings", f"{name} of {size}", fill, cuda=True)
    fill = partial(multiply, size=size, dtype=torch.float32)
    setting.measure("ceilings", f"fp32 product of {size}", fill)
    setting.measure("ceilings", "copy", copy, cuda=True)


def list_versions(row: Row) -> None:
    """Python, packages and the kernel for packed texts."""
    row.figures["python"] = platform.python_version()
    for name in PACKAGES:
        try:
            row.figures[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            row.figures[name] = "none"
    kernel = find_kernel()
    row.figures["variable-length attention"] = kernel.name if kernel else "none"


def name_device(row: Row) -> None:
    """Name, memory and capability."""
    about = torch.cuda.get_device_properties(row.setting.device)
    row.figures["name"] = about.name
    row.figures["memory GB"] = about.total_memory / 1e9
    row.figures["compute capability"] = f"{about.major}.{about.minor}"


def multiply(row: Row, size: int, dtype: torch.dtype) -> None:
    """A square product of random numbers."""
    device = row.setting.device
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    row.add_rates(measure_seconds(lambda: a @ b, row.setting), flops=2.0 * size**3)


def copy(row: Row) -> None:
    """4.3 GB from the device to itself, counting what is read and what is written."""
    source = torch.randint(255, (2**32,), device=row.setting.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = measure_seconds(lambda: target.copy_(source), row.setting)
    row.figures["ms"] = 1e3 * seconds
    row.figures["TB/s"] = 2 * source.numel() / seconds / 1e12
