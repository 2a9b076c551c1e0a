"""Micro-batches and their padding: which texts they hold, and their states laid out flat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recsys.types import Ragged, upload


def plan_micro_batches(
    lengths: Sequence[int], budget: int, spread: int = 1
) -> Iterator[tuple[int, ...]]:
    """Rows of each micro-batch, shortest first; a longer text than the budget goes alone.

    Args:
        lengths: Tokens of each text.
        budget: Padded tokens of a micro-batch, or with a spread real ones.
        spread: More than 1 where texts are packed: their padded form is to stay within so many
            times the budget.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    begin = 0
    while begin < len(order):
        end, tokens = begin + 1, lengths[order[begin]]
        while end < len(order):
            length = lengths[order[end]]
            tokens += length
            padded = (end + 1 - begin) * length
            if padded > spread * budget or (padded if spread == 1 else tokens) > budget:
                break
            end += 1
        yield tuple(order[begin:end])
        begin = end


def compute_places(starts: Tensor, sizes: Tensor) -> Tensor:
    """Where the elements of slices lie, one slice after the other; nothing loops over them.

    Args:
        starts: (U,) first place of each slice, on the host.
        sizes: (U,) its length.

    Returns:
        (sum of sizes,) int64.
    """
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.repeat_interleave(shift, sizes) + torch.arange(int(sizes.sum()))


def unpad_states(parts: Sequence[tuple[Sequence[int], Tensor]], lengths: Sequence[int]) -> Ragged:
    """States of micro-batches in the order of the input, without their padding.

    Args:
        parts: Which texts each micro-batch holds, and their states (N, L, D); one at least.
        lengths: Tokens of each text.

    Returns:
        (sum of lengths, D).
    """
    order = torch.tensor([row for rows, _ in parts for row in rows])
    widths = torch.tensor([hidden.shape[1] for _, hidden in parts])
    widths = widths.repeat_interleave(torch.tensor([len(rows) for rows, _ in parts]))
    starts = torch.empty_like(order)
    starts[order] = widths.cumsum(0) - widths
    states = torch.cat([hidden.flatten(0, 1) for _, hidden in parts])
    # One gather drops the padding and restores the order.
    at = compute_places(starts, torch.tensor(lengths))
    return Ragged(states[upload(at, states.device)], tuple(lengths))


def move_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the real tokens of each row to the left, in their order, and the padding behind them.

    Places count from the first real token then, in families that number them as in those that turn
    queries and keys by them; rows that are padded at the right stay as they are.

    Args:
        ids: (N, L) token ids.
        mask: (N, L) true or 1 for real tokens, on either side of the padding.

    Returns:
        (N, L) ids and (N, L) mask.
    """
    order = mask.long().argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), mask.gather(1, order)


def pad_texts(texts: Ragged) -> Tensor:
    """Token ids (Q, L) of Q texts, -1 at the end of the shorter ones."""
    if not len(texts):
        return torch.empty(0, 0, dtype=torch.long)
    return pad_sequence(texts.split(), batch_first=True, padding_value=-1)


def unpad_texts(ids: Tensor) -> Ragged:
    """The texts (Q texts) that `pad_texts` was given."""
    inside = ids >= 0
    return Ragged(ids[inside], tuple(inside.sum(1).tolist()))
