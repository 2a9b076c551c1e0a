"""Tensors of which each process holds a part, beside those that are whole everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def is_sharded(value: Tensor) -> bool:
    """Whether a tensor is spread over processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def take_local(value: Tensor) -> Tensor:
    """The part of a tensor that lies here: the whole of one that is not spread. No gradient."""
    if not is_sharded(value):
        return value.detach()
    local: Tensor = cast(Any, value).to_local()
    return local.detach()


def gather_whole(value: Tensor) -> Tensor:
    """The whole of a tensor; every process has to call it for one that is spread."""
    value = value.detach()
    return cast(Tensor, cast(Any, value).full_tensor()) if is_sharded(value) else value


def split_like(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor spread as another one is; as it is where that is not. Nothing is sent."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    spread = cast(Any, like)
    there = whole.to(spread.to_local().device)
    out: Tensor = distribute_tensor(
        there, spread.device_mesh, spread.placements, src_data_rank=None
    )
    return out


def sum_over_shards(values: Sequence[Tensor], sums: Iterable[Tensor]) -> Tensor:
    """(N,) sums of tensors from those of their parts here; whole ones count as they are.

    Args:
        values: (N) the tensors, some of which may be spread.
        sums: (N) a () sum of the part of each that lies here.
    """
    own = torch.stack(list(sums))
    spread = torch.tensor([is_sharded(value) for value in values], device=own.device)
    if not bool(spread.any()):
        return own
    parts = torch.where(spread, own, torch.zeros_like(own))
    dist.all_reduce(parts)
    return torch.where(spread, parts, own)


def compute_norm(values: Sequence[Tensor]) -> Tensor:
    """() Euclidean norm over all of some tensors, each process having its part of them."""
    parts = [take_local(value).float() for value in values]
    squares = sum_over_shards(values, (part.square().sum() for part in parts))
    return squares.sum().sqrt()
