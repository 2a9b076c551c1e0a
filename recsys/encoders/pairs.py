"""Pairs of texts in one sequence: where their tokens stand, and means over either of them."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.encoders.special_tokens import SpecialTokens
from recsys.types import Ragged

_KINDS = (2, 0, 2, 1, 2, -1)
"""Kind of token by segment: special, first text, special, second text, special, padding."""


class PairLayout:
    """Lays out pairs of texts by arithmetic on the host; no loop runs over pairs.

    Args:
        first: Raw token ids of the texts that stand first.
        second: Raw token ids of those that stand second.
        left: (P,) text of `first` in each pair, on the host.
        right: (P,) text of `second` in each pair, on the host.
        specials: What stands around and between them.
        max_length: Longest sequence. The second text is cut only where it alone is too long, and
            the first to what it leaves.

    Attributes:
        table: Ids of all texts and, last, of the special tokens, on the device of the texts.
        lengths: Length of each sequence, special tokens included.
    """

    def __init__(
        self,
        first: Ragged,
        second: Ragged,
        left: Tensor,
        right: Tensor,
        specials: SpecialTokens,
        max_length: int,
    ) -> None:
        separators = specials.get_separators()
        around = [*specials.prefix, *separators, *specials.suffix, specials.pad]
        constants = torch.tensor(around, dtype=torch.long).to(first.values.device)
        self.table = torch.cat([first.values.long(), second.values.long(), constants])
        # The last of them, the padding, is no part of a sequence.
        room = max(0, max_length - len(around) + 1)
        b = torch.tensor(second.sizes, dtype=torch.long)[right].clamp(max=room)
        a = torch.minimum(torch.tensor(first.sizes, dtype=torch.long)[left], room - b)
        before, between = len(specials.prefix), len(separators)
        fixed = torch.tensor([before, 0, between, 0, len(specials.suffix)])
        sizes = fixed.expand(len(left), 5).clone()
        sizes[:, 1], sizes[:, 3] = a, b
        self._ends = sizes.cumsum(1)
        self.lengths: list[int] = self._ends[:, -1].tolist()
        start = torch.tensor(first.offsets)[left], torch.tensor(second.offsets)[right]
        base = len(self.table) - len(around)
        # Where each segment begins in the table, less where it begins in the sequence.
        self._shift = torch.full((len(left), 6), len(self.table) - 1)
        self._shift[:, 0] = base
        self._shift[:, 1] = start[0] - self._ends[:, 0]
        self._shift[:, 2] = base + before - self._ends[:, 1]
        self._shift[:, 3] = start[1] + len(first.values) - self._ends[:, 2]
        self._shift[:, 4] = base + before + between - self._ends[:, 3]

    def compute_places(self, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Layout of some pairs, right-padded, on the host.

        Returns:
            (N, L) places in the table, and (N, L) kinds: first text 0, second 1, special 2,
            padding -1.
        """
        at = torch.tensor(rows)
        ends = self._ends[at]
        place = torch.arange(int(ends[:, -1].max())).expand(len(rows), -1).contiguous()
        segment = torch.searchsorted(ends, place, right=True)
        shift = self._shift[at].gather(1, segment)
        index = torch.where(segment < 5, place + shift, shift)
        return index, torch.tensor(_KINDS)[segment]


def compute_span_means(states: Tensor, kind: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means of states (N, L, D) over the first texts, the second and all but padding.

    Args:
        states: Token states.
        kind: (N, L) kinds as `PairLayout.compute_places` gives them.

    Returns:
        Three of (N, D); zero where a text is empty.
    """
    spans = torch.stack([kind == 0, kind == 1, kind >= 0], dim=1).to(states.dtype)
    # In the states' own precision also under autocast: these are sums.
    with torch.autocast(states.device.type, enabled=False):
        first, second, whole = ((spans @ states) / spans.sum(2, keepdim=True).clamp(min=1)).unbind(
            1
        )
    return first, second, whole
