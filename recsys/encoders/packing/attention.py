"""The attention of packed texts, as transformers' attention interface calls it.

On a GPU in half precision a kernel computes it (`recsys.encoders.packing.kernels`); elsewhere
queries, keys and values are laid out with padding for the attention alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from recsys.encoders.packing.kernels import Kernel, find_kernel
from recsys.encoders.packing.layout import HALF, PackedLayout, find_dtype
from recsys.errors import RecsysError


class PackingError(RecsysError):
    """A model cannot read packed texts; the reason is the message."""


def run_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **how: Any,  # noqa: ANN401 - what transformers' interface passes on
) -> tuple[Tensor, None]:
    """The attention of a layer: over packed texts where their layout is given, else sdpa.

    Args:
        module: The attention.
        query: (1, H, T, d) of packed texts.
        key: (1, K, T, d), where K divides H.
        value: (1, K, T, d).
        attention_mask: Looked at only for texts that are not packed.
        how: Scaling, dropout, window, and `PackedLayout.describe`.

    Returns:
        (1, T, H, d), and no weights.

    Raises:
        PackingError: The model asks for something that this attention does not have.
    """
    starts = how.get("cu_seq_lens_q")
    if starts is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **how
        )
        return out
    odd = [k for k in ("softcap", "s_aux", "position_bias") if how.get(k) is not None]
    if odd or key.shape[2] != query.shape[2]:
        raise PackingError(
            f"{type(module).__name__} has {odd[0] if odd else 'learned keys before its tokens'}"
        )
    causal = how.get("is_causal")
    if causal is None:
        causal = module.is_causal
    dtype = find_dtype(query)
    q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))
    scale, dropout, window = how.get("scaling"), how.get("dropout", 0.0), how.get("sliding_window")
    kernel = choose_kernel(q, dropout)
    if kernel is not None:
        longest = how["max_length_q"]
        packed = kernel.attend(q, k, v, starts, longest, scale, dropout, bool(causal), window)
    else:
        layout = PackedLayout(
            len(starts) - 1, how["max_length_q"], how["packed_places"], starts[None], starts
        )
        packed = attend_padded(q, k, v, layout, scale, dropout, bool(causal), window)
    return packed[None], None


def choose_kernel(q: Tensor, dropout: float) -> Kernel | None:
    """The kernel that computes queries (T, H, d) with such dropout, None where none does."""
    kernel = find_kernel() if q.is_cuda and q.dtype in HALF else None
    return kernel if kernel is not None and kernel.takes(q.shape[-1], dropout) else None


def attend_padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: PackedLayout,
    scale: float | None,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Attention within each text, padded for itself; on any device and in any precision.

    Args:
        q: (T, H, d) queries.
        k: (T, K, d) keys, where K divides H.
        v: (T, K, d) values.
        layout: Where the texts stand.
        scale: Of the products; None: 1 / sqrt(d).
        dropout: Share of the weights dropped.
        causal: Whether a token sees none after it.
        window: A token sees those less than so many away; None: all.

    Returns:
        (T, H, d).
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (k, v))
    q, k, v = (layout.unpack(x[None]).transpose(1, 2) for x in (q, k, v))
    place = torch.arange(layout.longest, device=q.device)
    length = layout.starts.diff()[:, None]
    ahead = place[:, None] - place  # (L, L) by how much the query stands behind the key
    seen = ahead >= 0 if causal else ahead > -layout.longest
    if window is not None:
        seen = seen & (ahead.abs() < window)
    real = place < length  # (N, L)
    # Padding sees everything, as what sees nothing is NaN; it is left out of what comes back.
    mask = torch.where(real[:, :, None], seen & real[:, None, :], True)
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask[:, None], dropout_p=dropout, scale=scale
    )
    return layout.pack(out.transpose(1, 2))[0]
