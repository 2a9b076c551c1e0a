"""Has an encoder pack its texts, where its model can.

A model takes part through the attention interface of transformers. Whether it does so rightly, with
its positions, windows and masks, is found by comparing its states, not by a list of families.
"""

from __future__ import annotations

import inspect
from typing import Literal

import torch
from torch import nn
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from recsys.encoders.encoder import Encoder
from recsys.encoders.packing.attention import PackingError, run_attention
from recsys.encoders.packing.kernels import find_kernel
from recsys.encoders.packing.layout import Packing
from recsys.errors import ConfigError
from recsys.types import Ragged

NAME = "recsys_packed"
"""Under which transformers knows the attention."""


def enable_packing(encoder: Encoder, asked: Literal["off", "auto", "on"]) -> str:
    """Has an encoder pack its texts, where that is asked for and its model can.

    Args:
        encoder: The tuned encoder; what a tuning method put into it takes part in the check.
        asked: off; auto, which packs where a GPU computes in half precision; or on, everywhere.

    Returns:
        What there is to say, or nothing.

    Raises:
        ConfigError: on was asked for, and the model cannot.
    """
    if asked == "off" or (asked == "auto" and not (torch.cuda.is_available() and find_kernel())):
        return ""
    try:
        _connect(encoder.model)
        encoder.packing = Packing(encoder.model, everywhere=True)
        _check_packing(encoder)
    except PackingError as error:
        encoder.packing = None
        if asked == "on":
            raise ConfigError(
                f"encoder.packing=on: {error}; set it to off, or choose another model."
            ) from error
        return f"encoder: texts are padded, not packed, as {error}"
    encoder.packing.everywhere = asked == "on"
    kernel = find_kernel()
    by = f" ({kernel.name} on a GPU in half precision)" if kernel else ""
    return f"encoder: texts are packed, and padded for the attention alone{by}"


def _connect(model: nn.Module) -> None:
    """Has the model's attention go through `run_attention`.

    Raises:
        PackingError: It does not go through transformers' interface, or takes no positions.
    """
    name = type(model).__name__
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise PackingError(f"{name} takes no positions")
    if getattr(model.config, "_attn_implementation", None) not in ("sdpa", NAME):
        raise PackingError(f"{name} does not compute its attention with torch's sdpa")
    AttentionInterface.register(NAME, run_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)  # type: ignore[operator]
    except (ValueError, KeyError) as error:
        raise PackingError(f"{name} takes no attention but its own") from error


@torch.no_grad()
def _check_packing(encoder: Encoder) -> None:
    """Compares states of packed texts with padded ones, a text longer than any window among them.

    Raises:
        PackingError: They differ, or the model's own code does not take packed texts.
    """
    window = _find_window(encoder.model)
    long = min(encoder.max_length, 12 if window is None else window + 8)
    like = next(encoder.model.parameters())
    rows = encoder.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    sizes = tuple(dict.fromkeys((1, min(5, long), long)))
    ids = torch.arange(sum(sizes), device=like.device) * 7919 % (rows - 1)
    ids += ids >= encoder.specials.pad  # RoBERTa gives padding no position of its own
    name, was, packing = type(encoder.model).__name__, encoder.training, encoder.packing
    encoder.eval()
    try:
        encoder.packing = None
        want = encoder.compute_states(Ragged(ids, sizes)).values.float()
        encoder.packing = packing
        got = encoder.compute_states(Ragged(ids, sizes)).values.float()
    except (MemoryError, torch.OutOfMemoryError, PackingError):
        raise
    except Exception as error:  # whatever a family's code says to what it does not know
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PackingError(f"{name} does not read packed texts ({reason})") from error
    finally:
        encoder.packing = packing
        encoder.train(was)
    # Far above what rounding does, far below an attention that looks into the text beside it.
    limit = 1e-3 if want.dtype == like.dtype else 5e-2
    if not float((got - want).norm() / want.norm().clamp(min=1e-12)) <= limit:
        raise PackingError(f"{name} gives other states for packed texts than for padded ones")


def _find_window(model: nn.Module) -> int | None:
    """The widest window of the model's attentions, where they have one."""
    window = getattr(model.config, "sliding_window", None)
    return None if not isinstance(window, int) or isinstance(window, bool) else window
