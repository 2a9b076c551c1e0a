"""The training loader: slices of an epoch's order, each rank's share of every global batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from recsys.data.examples import Ints
from recsys.types import Batch

Order = Callable[[int], Ints]
Make = Callable[[Ints, int], Batch]


class EpochBatches:
    """Epoch number and this rank's slice of each global batch.

    It is passed to the loader as `sampler` with `batch_size=None`, because Lightning calls
    `set_epoch` only there.

    Args:
        order: What an epoch trains on, shuffled; the same on every rank.
        batch_size: Rows of a step over all ranks.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, order: Order, batch_size: int, rank: int, world: int) -> None:
        self.order, self.batch_size, self.rank, self.world = order, batch_size, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.order(0)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, Ints]]:
        order, size = self.order(self.epoch), self.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return iter([(self.epoch, b[self.rank :: self.world]) for b in batches])


class _Train(Dataset[Batch]):
    def __init__(self, make: Make) -> None:
        self.make = make

    def __getitem__(self, key: tuple[int, Ints]) -> Batch:
        epoch, at = key
        return self.make(at, epoch)


def train_loader(batches: EpochBatches, make: Make, seed: int) -> DataLoader[Batch]:
    """The loader of an epoch's batches.

    Args:
        batches: What is trained on, in which order.
        make: Builds the batch of some examples in an epoch.
        seed: Of the loader's own generator, so that it takes nothing from torch's.
    """
    return DataLoader(
        _Train(make),
        sampler=batches,
        batch_size=None,
        generator=torch.Generator().manual_seed(seed),
    )
