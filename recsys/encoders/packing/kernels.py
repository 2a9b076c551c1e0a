"""Kernels for texts of different lengths, for a GPU in half precision.

Dao, FlashAttention-2, ICLR 2024: as torch has it, or the package flash-attn.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from torch import Tensor

WIDEST_HEAD = 256
"""Numbers of a head that the kernels take; more, or no multiple of 8, is computed with padding."""


class Attend(Protocol):
    """Attention within each of several texts that stand one behind the other."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        starts: Tensor,
        longest: int,
        scale: float | None,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        """(T, H, d) from (T, H, d), (T, K, d) and (T, K, d); the rest as in `attend_padded`."""
        ...


@dataclass(frozen=True)
class Kernel:
    """A kernel for texts of different lengths, for a GPU in half precision.

    Attributes:
        name: What it is.
        drops: Whether it drops weights, as training may want.
        attend: Runs it.
    """

    name: str
    drops: bool
    attend: Attend

    def takes(self, width: int, dropout: float) -> bool:
        """Whether it computes heads of this width with this share of weights dropped."""
        return width % 8 == 0 and width <= WIDEST_HEAD and (self.drops or not dropout)


@lru_cache(maxsize=1)
def find_kernel() -> Kernel | None:
    """The kernel of this installation: torch's, else that of flash-attn, else none."""
    if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
        from torch.nn.attention.varlen import varlen_attn

        # Before torch 2.11 it had neither.
        if {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters):
            return Kernel("torch.nn.attention.varlen", False, bind_torch_kernel(varlen_attn))
    if importlib.util.find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func

        return Kernel("flash-attn", True, bind_flash_kernel(flash_attn_varlen_func))
    return None


def bind_torch_kernel(varlen: Callable[..., Any]) -> Attend:
    """`torch.nn.attention.varlen.varlen_attn` as an `Attend`."""
    groups = "enable_gqa" in inspect.signature(varlen).parameters  # from torch 2.12 on

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        starts: Tensor,
        longest: int,
        scale: float | None,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        repeats = q.shape[1] // k.shape[1]
        if repeats > 1 and not groups:
            k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
        grouped = {"enable_gqa": repeats > 1} if groups else {}
        # The last axis has to lie together in memory.
        q, k, v = (x.contiguous() for x in (q, k, v))
        out: Tensor = varlen(
            q,
            k,
            v,
            starts,
            starts,
            longest,
            longest,
            scale=scale,
            window_size=_make_window(causal, window),
            **grouped,
        )
        return out

    return attend


def bind_flash_kernel(varlen: Callable[..., Any]) -> Attend:
    """`flash_attn.flash_attn_varlen_func` as an `Attend`."""

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        starts: Tensor,
        longest: int,
        scale: float | None,
        dropout: float,
        causal: bool,
        window: int | None,
    ) -> Tensor:
        out: Tensor = varlen(
            q,
            k,
            v,
            starts,
            starts,
            longest,
            longest,
            dropout_p=dropout,
            softmax_scale=scale,
            causal=causal,
            window_size=_make_window(causal, window),
        )
        return out

    return attend


def _make_window(causal: bool, window: int | None) -> tuple[int, int]:
    """How many keys a token sees before and after its own, -1 for all."""
    before = -1 if window is None else window - 1
    return before, 0 if causal else before
