"""Sequences that share a prefix, as token ids, positions and a mask of what each token sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.padding import compute_places
from recsys.types import Ragged, upload


@dataclass(frozen=True)
class TreeBatch:
    """Sequences of a micro-batch, right-padded.

    Attributes:
        rows: Which sequences it holds.
        pairs: Which pairs, by their place in the input.
        ids: (N, L) token ids.
        positions: (N, L) where each token stands in the sequence of its own.
        branches: (N, L) 0 of the prefix, from 1 on of an end, -1 of padding.
        ends: (2, P) row and column of the last token of each pair.
    """

    rows: tuple[int, ...]
    pairs: tuple[int, ...]
    ids: Tensor
    positions: Tensor
    branches: Tensor
    ends: Tensor


class PrefixTrees:
    """Lays out pairs of a prefix and an end by arithmetic on the host; no loop runs over tokens.

    Args:
        prefixes: Token ids of the prefixes.
        ends: Token ids of the ends, one at least in each.
        left: (P,) prefix of each pair, on the host; equal ones stand together.
        right: (P,) end of each pair, on the host.
        pad: Id of the padding.
        budget: Tokens of a sequence with several ends; one as long as twice its prefix may always
            be.
        share: Whether pairs share a sequence at all.

    Attributes:
        lengths: Tokens of each sequence.
    """

    def __init__(
        self,
        prefixes: Ragged,
        ends: Ragged,
        left: Tensor,
        right: Tensor,
        pad: int,
        budget: int,
        share: bool = True,
    ) -> None:
        before = torch.tensor(prefixes.sizes)[left]
        after = torch.tensor(ends.sizes)[right]
        owner = _number_trees(left.tolist(), before.tolist(), after.tolist(), budget, share)
        self._owner = torch.tensor(owner)
        first = torch.diff(self._owner, prepend=torch.tensor([-1])) > 0
        heads = torch.nonzero(first).flatten()
        # Segments in order: of each sequence the prefix, then its ends.
        place = torch.arange(len(left)) + self._owner + 1
        head_place = heads + torch.arange(len(heads))
        total = len(left) + len(heads)
        starts, sizes, shift = (torch.zeros(total, dtype=torch.long) for _ in range(3))
        branch = torch.zeros(total, dtype=torch.long)
        offsets = torch.tensor(prefixes.offsets)[left]
        starts[head_place], sizes[head_place] = offsets[heads], before[heads]
        starts[place] = torch.tensor(ends.offsets)[right] + len(prefixes.values)
        sizes[place], shift[place] = after, before
        branch[place] = 1 + torch.arange(len(left)) - heads[self._owner]
        stop = sizes.cumsum(0)
        self._table = torch.cat(
            [prefixes.values.long(), ends.values.long(), prefixes.values.new_tensor([pad]).long()]
        )
        self._index = compute_places(starts, sizes)
        self._positions = compute_places(shift, sizes)
        self._branches = torch.repeat_interleave(branch, sizes)
        begin = (stop - sizes)[head_place]
        self._begin = begin
        lengths = torch.diff(torch.cat([begin, stop[-1:]]))
        self.lengths: tuple[int, ...] = tuple(lengths.tolist())
        self._last = stop[place] - 1 - begin[self._owner]
        self._pairs = torch.split(torch.arange(len(left)), torch.bincount(self._owner).tolist())

    def make_batch(self, rows: tuple[int, ...]) -> TreeBatch:
        """Sequences by their number, all on the device of the texts but the pairs."""
        device, at = self._table.device, torch.tensor(rows)
        length = torch.tensor(self.lengths)[at][:, None]
        place = torch.arange(int(length.max()))[None, :]
        real = place < length
        flat = torch.where(real, self._begin[at][:, None] + place, 0)
        index = torch.where(real, self._index[flat], len(self._table) - 1)
        # Padding stands nowhere; 0 is a position that every model has.
        positions = torch.where(real, self._positions[flat], 0)
        branches = torch.where(real, self._branches[flat], -1)
        pairs = torch.cat([self._pairs[row] for row in rows])
        sizes = torch.tensor([len(self._pairs[row]) for row in rows])
        ends = torch.stack(
            [torch.repeat_interleave(torch.arange(len(rows)), sizes), self._last[pairs]]
        )
        on = [upload(x, device) for x in (index, positions, branches, ends)]
        return TreeBatch(rows, tuple(pairs.tolist()), self._table[on[0]], *on[1:])

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """What names each sequence: its tokens and where its ends begin."""
        ids, out = self._table.cpu().numpy()[self._index.numpy()].astype(np.int32), []
        branches = self._branches.numpy().astype(np.int32)
        for begin, size in zip(self._begin.tolist(), self.lengths, strict=True):
            part = slice(begin, begin + size)
            whole = ids[part].tobytes() + branches[part].tobytes()
            out.append(hashlib.blake2b(whole, digest_size=16).digest())
        return tuple(out)


def _number_trees(
    left: list[int], before: list[int], after: list[int], budget: int, share: bool
) -> list[int]:
    """The sequence of each pair: a new one with another prefix, or where the budget is used up."""
    out: list[int] = []
    number, used = -1, 0
    for i, (prefix, size) in enumerate(zip(before, after, strict=True)):
        full = used + size > max(budget, 2 * prefix)
        if not share or not i or left[i] != left[i - 1] or full:
            number, used = number + 1, prefix
        used += size
        out.append(number)
    return out


def make_tree_mask(batch: TreeBatch, window: int | None = None) -> Tensor:
    """(N, 1, L, L) bool, whether a token (row) sees another (column).

    Args:
        batch: The sequences.
        window: How many tokens a token sees, itself included; None: all earlier ones.
    """
    own, other = batch.branches[:, :, None], batch.branches[:, None, :]
    size = batch.ids.shape[1]
    seen = torch.ones(size, size, dtype=torch.bool, device=batch.ids.device).tril()
    mask = ((other == 0) | (other == own)) & (other >= 0) & seen
    if window is not None:
        mask &= batch.positions[:, :, None] - batch.positions[:, None, :] < window
    # A row without anything to see would be NaN: padding sees itself.
    return (mask | torch.eye(size, dtype=torch.bool, device=mask.device))[:, None]
