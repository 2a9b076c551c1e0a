"""What training has read and computed, to be added up over stops and ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import torch


@dataclass
class TrainingCounts:
    """What training has read and computed.

    Attributes:
        texts: Texts encoded, each once a step.
        tokens: Their tokens, special tokens included and padding not.
        flops: Floating point operations; `recsys.recommender.flops` has the formula.
        positions: Token places that the encoder worked on, padding included; profiled runs only.
        references: Places in histories and candidate lists; profiled runs only.
        unique: Items that stand in them, each once a step; profiled runs only.
    """

    texts: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    positions: float = 0.0
    references: float = 0.0
    unique: float = 0.0

    def add(self, other: TrainingCounts) -> TrainingCounts:
        """The sum."""
        return TrainingCounts(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(TrainingCounts))
        )

    def sum_over_ranks(self, device: torch.device) -> TrainingCounts:
        """The sum over all ranks; every rank must call it."""
        if not torch.distributed.is_initialized():
            return self
        values = torch.tensor(list(asdict(self).values()), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(values)
        return TrainingCounts(*values.tolist())
