"""The weights of an encoder spread over processes.

Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel (VLDB 2023): each
process holds a part of every weight, and a layer is put together for as long as it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch.distributed as dist

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import find_layer_stack
from recsys.encoders.sharded.passes import SharedPasses

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard_encoders(encoders: Sequence[Encoder], mesh: DeviceMesh) -> SharedPasses:
    """Spreads the weights of encoders over processes, in place.

    Each layer is a unit that is put together by itself, and the rest of a model another one. What
    pools its states stays whole on every process.

    Args:
        encoders: The same on every process.
        mesh: The processes.

    Returns:
        What every call of one of them asks from now on.
    """
    from torch.distributed.fsdp import fully_shard

    for encoder in encoders:
        for layer in find_layer_stack(encoder.model)[1]:
            fully_shard(layer, mesh=mesh)
        fully_shard(encoder.model, mesh=mesh)
    group = dist.new_group(backend="gloo")
    passes = SharedPasses(encoders, cast(dist.ProcessGroup, group))
    for encoder in encoders:
        encoder.passes = passes
    return passes
