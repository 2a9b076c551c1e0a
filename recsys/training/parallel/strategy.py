"""What several processes share: batches alone, or the weights of the encoder as well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from recsys.config.groups import TrainerOptions
from recsys.encoders.sharded.tensors import is_sharded, split_like, take_local
from recsys.recommender.stepped import SteppedModule
from recsys.training.parallel.state_files import write_parts


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 by Lightning, with states to go on from that other numbers of processes can read.

    Each process writes its part of the weights and of the optimiser into a file of its own, and the
    state that names these files comes last, so that it is whole or absent as any other.

    Args:
        processes: How many there are, over all machines.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(processes, 1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: from the state that `load_checkpoint` of the plugin has put together."""
        return True

    @property
    def _stepped(self) -> SteppedModule[Any]:
        return cast(SteppedModule[Any], self.lightning_module)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This process' part of what trains."""
        return {k: take_local(p) for k, p in self._stepped.get_trained_parameters().items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """This process' part of an optimiser."""
        state = optimizer.state_dict()
        parts = {
            i: {k: take_local(v) if isinstance(v, torch.Tensor) else v for k, v in each.items()}
            for i, each in state["state"].items()
        }
        return {**state, "state": parts}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None
    ) -> None:
        """Writes parts, and then the state that names them.

        Raises:
            DataError: The disk is full; the last state stands.
        """
        own = self._stepped.get_trained_parameters()
        spread = {name for name, p in own.items() if is_sharded(p)}
        entries = [
            [
                (i, key)
                for i, state in optimizer.state_dict()["state"].items()
                for key, value in state.items()
                if isinstance(value, torch.Tensor) and is_sharded(value)
            ]
            for optimizer in self.optimizers
        ]
        write_parts(
            checkpoint,
            Path(filepath),
            spread,
            entries,
            self.global_rank,
            self.world_size,
            self.checkpoint_io,
            dist.barrier,
        )

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The whole state, on the host."""
        loaded: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        return loaded

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Takes this process' part of each weight."""
        for name, p in self._stepped.get_trained_parameters().items():
            take_local(p).copy_(take_local(split_like(checkpoint["state_dict"][name], p)))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes this process' part of each optimiser."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            owners = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {
                i: {
                    k: split_like(v, owners[i])
                    if isinstance(v, torch.Tensor) and v.shape == owners[i].shape
                    else v
                    for k, v in each.items()
                }
                for i, each in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def make_strategy(options: TrainerOptions) -> Strategy | Literal["ddp", "auto"]:
    """What the Trainer takes for `trainer.strategy`."""
    if options.shards:
        return ShardedStrategy(options.processes)
    return "ddp" if options.processes > 1 else "auto"
