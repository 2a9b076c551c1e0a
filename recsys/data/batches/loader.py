"""The training loader: slices of an epoch's order, each rank's share of every global batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from recsys.data.batches.batching import BatchPlan
from recsys.data.batches.examples import Ints
from recsys.types import Batch, TextBatch

B = TypeVar("B", bound=Batch | TextBatch)
Key = tuple[int, Ints, bool]


class EpochBatchSampler:
    """Epoch number, this rank's slice of each global batch, and whether it only fills a place.

    A rank whose share of a batch is empty gets one row of it that is not counted: it must take
    part in the step. It is passed to the loader as `sampler` with `batch_size=None`, because
    Lightning calls `set_epoch` only there.

    Args:
        plan: The global batches of every epoch.
        rank: This process.
        world: Number of processes.
        position: The epoch and the batches trained on since the first one began, as the training
            loop counts them; asked when the reading begins, so that a run goes on in mid-epoch.
            None: whole epochs, as `set_epoch` says.
    """

    def __init__(
        self,
        plan: BatchPlan,
        rank: int,
        world: int,
        position: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.plan, self.rank, self.world = plan, rank, world
        self.position = position
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of the epoch that is read, or of the one that is about to be."""
        return self.plan.count_batches(self.epoch if self.position is None else self.position()[0])

    def __iter__(self) -> Iterator[Key]:
        first, done = 0, 0
        if self.position is not None:
            # A run that goes on begins to read before `set_epoch` is called.
            self.epoch, done = self.position()
        batches = self.plan.make_batches(self.epoch)
        if self.position is not None:
            first = done - self.plan.count_earlier_batches(self.epoch)
        if not 0 <= first <= len(batches):
            raise RuntimeError(f"epoch {self.epoch} cannot begin at batch {first}")
        return iter([self._select_share(batch) for batch in batches[first:]])

    def _select_share(self, batch: Ints) -> Key:
        mine = batch[self.rank :: self.world]
        return (self.epoch, mine, False) if len(mine) else (self.epoch, batch[:1], True)


class _TrainDataset(Dataset[B], Generic[B]):
    def __init__(self, make: Callable[[Ints, int], B]) -> None:
        self.make = make

    def __getitem__(self, key: Key) -> B:
        epoch, at, filler = key
        batch = self.make(at, epoch)
        if filler:
            batch = dataclasses.replace(batch, case=torch.full_like(batch.case, -1))
        return batch


class TrainLoader(DataLoader[B], Generic[B]):
    """A loader whose position needs no state: its sampler derives it from the loop's counters."""

    def state_dict(self) -> dict[str, object]:
        """Nothing; that there is one tells Lightning that training may go on in mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Takes nothing."""


def make_train_loader(
    batches: EpochBatchSampler, make: Callable[[Ints, int], B], seed: int
) -> TrainLoader[B]:
    """The loader of an epoch's batches.

    Args:
        batches: What is trained on, in which order.
        make: Builds the batch of some examples in an epoch.
        seed: Of the loader's own generator, so that it takes nothing from torch's.
    """
    return TrainLoader(
        _TrainDataset(make),
        sampler=batches,
        batch_size=None,
        generator=torch.Generator().manual_seed(seed),
    )
