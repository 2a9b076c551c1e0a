"""The one LightningDataModule that every tuning method and architecture shares."""

from __future__ import annotations

import lightning.pytorch as lp
import numpy as np
from torch.utils.data import DataLoader, Dataset

from recsys.data.examples import TEST, VAL, Examples, Ints, Queries, Sampling
from recsys.data.loader import EpochBatches, train_loader
from recsys.types import Batch


class _Cases(Dataset[Batch]):
    def __init__(self, module: RecDataModule, at: Ints) -> None:
        self.module, self.at = module, at

    def __len__(self) -> int:
        return -(-len(self.at) // self.module.eval_batch_size)

    def __getitem__(self, index: int) -> Batch:
        size = self.module.eval_batch_size
        rows = self.module.examples.case_rows(self.at[index * size : (index + 1) * size])
        return self.module.examples.batch(rows, self.module.sizes)


class RecDataModule(lp.LightningDataModule):
    """Loads batches of indices for training, validation and test.

    Args:
        examples: Queries and cases.
        sizes: (I,) raw token counts of the catalog.
        queries: Which training queries a user gives in an epoch.
        per_user: How many, with `queries="random"`.
        negatives: Sampled negatives beside each target.
        sampling: How they are drawn.
        batch_size: Rows of a step, over all ranks.
        eval_batch_size: Cases of an evaluation step, a rank.
        seed: Of the run.
    """

    def __init__(
        self,
        examples: Examples,
        sizes: Ints,
        *,
        queries: Queries,
        per_user: int,
        negatives: int,
        sampling: Sampling,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.examples, self.sizes, self.queries, self.per_user = examples, sizes, queries, per_user
        self.negatives, self.batch_size, self.eval_batch_size = (
            negatives,
            batch_size,
            eval_batch_size,
        )
        self.sampling, self.seed = sampling, seed

    def order(self, epoch: int) -> Ints:
        """What an epoch trains on, shuffled; the same on every rank."""
        return self.examples.epoch(self.queries, self.per_user, self.seed, epoch)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of this rank; every rank has the same number of steps."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        batches = EpochBatches(self.order, self.batch_size, rank, world)
        return train_loader(batches, self.train_batch, self.seed)

    def train_batch(self, at: Ints, epoch: int) -> Batch:
        """The batch of some of an epoch's examples, with the negatives of that epoch."""
        rows = self.examples.train_rows(self.queries, at)
        drawn = None
        if self.negatives:
            drawn = self.examples.negatives(rows, self.negatives, self.sampling, self.seed, epoch)
        return self.examples.batch(rows, self.sizes, drawn)

    def cases(self, role: int) -> DataLoader[Batch]:
        """All cases of a role on this rank, each once over all ranks."""
        at = self.examples.cases(role)
        if self.trainer is not None:
            at = np.array_split(at, self.trainer.world_size)[self.trainer.global_rank]
        return DataLoader(_Cases(self, at), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation cases."""
        return self.cases(VAL)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test cases."""
        return self.cases(TEST)
