"""Micro-batches: texts with their special tokens, side by side and padded at the right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.encoders.special_tokens import SpecialTokens
from recsys.types import Ragged, upload


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch, right-padded.

    Attributes:
        rows: Which texts it holds, by their place in the input.
        lengths: Length of each, special tokens included.
        ids: (N, L) token ids.
        mask: (N, L) true for real tokens.
    """

    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    ids: Tensor
    mask: Tensor


def fill_micro_batches(
    tokens: Ragged,
    lengths: Sequence[int],
    plan: Iterable[tuple[int, ...]],
    specials: SpecialTokens,
) -> Iterator[MicroBatch]:
    """The micro-batches of a plan.

    It is made from sizes on the host alone: no step waits for the device.

    Args:
        tokens: Raw token ids (sum of L,) of all texts.
        lengths: Length of each text, special tokens included; what is longer is cut at its end.
        plan: Texts of each micro-batch.
        specials: What stands around a text.
    """
    prefix, suffix = specials.prefix, specials.suffix
    constants = torch.tensor([*prefix, *suffix, specials.pad], dtype=torch.long)
    device = tokens.values.device
    # Every id of every micro-batch is looked up in the tokens followed by the special tokens.
    table = torch.cat([tokens.values.long(), upload(constants, device)])
    for rows in plan:
        own = tuple(lengths[row] for row in rows)
        index, mask = _compute_places(tokens, rows, own, specials)
        yield MicroBatch(rows, own, table[upload(index, device)], upload(mask, device))


def _compute_places(
    tokens: Ragged, rows: tuple[int, ...], lengths: tuple[int, ...], specials: SpecialTokens
) -> tuple[Tensor, Tensor]:
    """Where each id of a micro-batch stands in the table of tokens and specials; (N, L) twice."""
    total, before, after = tokens.values.shape[0], len(specials.prefix), len(specials.suffix)
    offsets, length = tokens.offsets, torch.tensor(lengths).unsqueeze(1)
    start = torch.tensor([offsets[row] for row in rows]).unsqueeze(1)
    sizes = torch.tensor([tokens.sizes[row] for row in rows]).unsqueeze(1)
    kept = torch.minimum(sizes, length - before - after)
    place = torch.arange(max(lengths)).unsqueeze(0)
    index = torch.full((len(rows), place.shape[1]), total + before + after)
    index = torch.where(place < before + kept + after, total + place - kept, index)
    index = torch.where(place < before + kept, start + place - before, index)
    index = torch.where(place < before, total + place, index)
    return index, place < length
