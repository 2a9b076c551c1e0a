"""Batches of a pretraining: other ones in each epoch, and what is held out always the same."""

from __future__ import annotations

from functools import cached_property

import lightning.pytorch as lp
import numpy as np
from torch.utils.data import DataLoader, Dataset

from recsys.data.batches.batching import BatchPlan, FixedSizePlan
from recsys.data.batches.loader import EpochBatchSampler, make_train_loader
from recsys.pretrain.tasks.base import Ints, Task
from recsys.training.datamodule import get_ranks, make_position
from recsys.types import TextBatch

HELD = 2**32 - 1
"""In place of an epoch: what is drawn for a validation is the same in all of them."""


class _HeldDataset(Dataset[TextBatch]):
    def __init__(self, data: TextLoaders) -> None:
        self.data = data

    def __len__(self) -> int:
        return -(-len(self.data.held) // self.data.batch_size)

    def __getitem__(self, index: int) -> TextBatch:
        size = self.data.batch_size
        part = self.data.held[index * size : (index + 1) * size]
        return self.data.task.make_batch(part, self.data.sample_seed, HELD)


class TextLoaders(lp.LightningDataModule):
    """Batches of a task's examples.

    Args:
        task: Makes them.
        share: Held out.
        batch_size: Examples of a step.
        seed: Of the run.
        sample_seed: Of what is held out, and of what a validation draws.
    """

    def __init__(
        self, task: Task, share: float, batch_size: int, seed: int, sample_seed: int
    ) -> None:
        super().__init__()
        self.task, self.batch_size, self.seed = task, batch_size, seed
        self.sample_seed = sample_seed
        self.examples, held = task.split_examples(share, sample_seed)
        # Neighbours are alike: of one user, or of one shelf.
        self.held: Ints = np.random.default_rng([sample_seed, 4]).permutation(held)

    def make_epoch_order(self, epoch: int) -> Ints:
        """What an epoch trains on, shuffled."""
        return np.random.default_rng([self.seed, epoch, 5]).permutation(self.examples)

    @cached_property
    def plan(self) -> BatchPlan:
        """The batches of every epoch."""
        return FixedSizePlan(self.make_epoch_order, len(self.examples), self.batch_size)

    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training, as `BatchPlan.count_steps`."""
        return self.plan.count_steps(epochs, accumulate, most)

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Batches from where the Trainer is."""
        position = make_position(self.trainer, self)
        batches = EpochBatchSampler(self.plan, *get_ranks(self.trainer), position)
        return make_train_loader(batches, self._make_batch, self.seed)

    def _make_batch(self, at: Ints, epoch: int) -> TextBatch:
        return self.task.make_batch(at, self.seed, epoch)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        """What is held out."""
        return DataLoader(_HeldDataset(self), batch_size=None)
