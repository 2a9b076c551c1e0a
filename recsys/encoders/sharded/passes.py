"""Passes of an encoder that all processes take part in, because its weights are spread over them.

Each forward pass of such a model is a collective, and so is its backward pass: where one process
has fewer texts than another, it has to take part in the passes that it does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

_DONE = -1


class FilledEncoder(Protocol):
    """What can run a pass that is not needed."""

    def run_filler(self) -> Tensor:
        """States (1, 1, D) of a text of one token."""
        ...


class SharedPasses:
    """Agrees on how many passes of which encoder come next, and runs those that are not needed.

    Before its passes a process says what it wants; all of them then run as many as the one that
    wants most. Texts of one token stand in for those that it lacks, and count for nothing. Who has
    nothing more to run says so and goes along until the others are through.

    Args:
        encoders: Those whose weights are spread, in the same order everywhere.
        group: Processes that agree, by numbers on the host: no step waits for a device.
    """

    def __init__(self, encoders: Sequence[FilledEncoder], group: dist.ProcessGroup) -> None:
        self.encoders, self.group = tuple(encoders), group

    def join(self, encoder: FilledEncoder, count: int) -> Tensor | None:
        """Runs what others need before and beside `count` passes of this process.

        Every process calls it before the passes of a call, also where it has none.

        Args:
            encoder: Whose passes come.
            count: How many.

        Returns:
            () zero that hangs on the passes that were not needed, to be added to the result: their
            backward passes are needed by others. None where there were none.
        """
        place = next(i for i, each in enumerate(self.encoders) if each is encoder)
        mine = 2 * place + torch.is_grad_enabled()
        total: Tensor | None = None
        while True:
            kind, most = self._agree(mine, count)
            fillers = self._fill(kind, most - count if kind == mine else most)
            if fillers is not None:
                total = fillers if total is None else total + fillers
            if kind == mine:
                return total

    def finish(self) -> Tensor | None:
        """Runs what others still need, until no process has any pass left; as `join`."""
        total: Tensor | None = None
        while True:
            kind, most = self._agree(_DONE, 0)
            if kind == _DONE:
                return total
            fillers = self._fill(kind, most)
            if fillers is not None:
                total = fillers if total is None else total + fillers

    def _agree(self, kind: int, count: int) -> tuple[int, int]:
        """Which kind of pass comes next, and how many of it; (-1, 0) where nobody needs any."""
        mine = torch.tensor([kind, count])
        every = [torch.empty_like(mine) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(every, mine, group=self.group)
        wanted = [(int(k), int(n)) for k, n in every if int(k) != _DONE]
        if not wanted:
            return _DONE, 0
        first = min(k for k, _ in wanted)
        return first, max(n for k, n in wanted if k == first)

    def _fill(self, kind: int, count: int) -> Tensor | None:
        """() zero of so many passes over a text of one token, with gradients where others have."""
        if not count:
            return None
        encoder = self.encoders[kind // 2]
        with torch.set_grad_enabled(bool(kind % 2)):
            zeros = [0.0 * encoder.run_filler().float().sum() for _ in range(count)]
            return torch.stack(zeros).sum()
