"""Batches of training, validation and test, which every tuning method and architecture shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from recsys.data.augmentation.histories import HistoryAugmentation
from recsys.data.augmentation.texts import TrainingTexts
from recsys.data.batches.batching import (
    BatchPlan,
    FixedSizePlan,
    TokenBudgetPlan,
    compute_token_ends,
)
from recsys.data.batches.examples import TEST, VAL, Examples, Ints, Queries
from recsys.data.batches.loader import EpochBatchSampler, make_train_loader
from recsys.data.batches.negatives import NegativeSampler
from recsys.data.batches.rows import BatchRows, CandidateLists
from recsys.data.columns.arrays import sample
from recsys.errors import ConfigError
from recsys.types import Batch

_EXAMPLES = 4096  # whose histories are changed at a time where a whole epoch is planned


class _CaseDataset(Dataset[Batch]):
    def __init__(self, module: BatchLoaders, rows: BatchRows, extras: dict[str, Tensor]) -> None:
        self.module, self.rows, self.extras = module, rows, extras

    def __len__(self) -> int:
        return -(-len(self.rows.case) // self.module.eval_batch_size)

    def __getitem__(self, index: int) -> Batch:
        size = self.module.eval_batch_size
        part = slice(index * size, (index + 1) * size)
        # Cases have one query a row, so that rows and queries are cut alike.
        fields = {f.name: getattr(self.rows, f.name)[part] for f in dataclasses.fields(BatchRows)}
        fields["row"] = fields["row"] - index * size
        batch = self.module.examples.make_batch(
            BatchRows(**fields), self.module.sizes, with_seen=True
        )
        extras = {name: column[part] for name, column in self.extras.items()}
        return dataclasses.replace(batch, extras=extras)


class BatchLoaders:
    """Loads batches of indices for training, validation and test, in one process.

    Args:
        examples: Queries and cases.
        sizes: (I,) raw token counts of the catalog.
        queries: Which training queries a user gives in an epoch.
        per_user: How many, with `queries="random"`.
        negatives: Sampled negatives of each target.
        sampler: Draws them.
        augmentation: Changes the histories of training queries; None: nothing does.
        texts: Leave something out of the item texts in training; None: they are whole.
        pool: (N,) catalog rows whose mean length is expected of a negative.
        batch_size: Rows of a step, over all ranks, where `batch_tokens` is None.
        batch_tokens: Tokens of a step's unique items, over all ranks: as many examples as fit in
            it, at least one. A negative counts as an item of mean length, each time anew, and an
            item with all of its words.
        costs: (I,) tokens that an encoder reads for each item, special tokens included.
        eval_batch_size: Cases of an evaluation step, a rank.
        seed: Of the run.
        lists: What is ranked, by role; a role that has none ranks the whole catalog.
        max_cases: Evaluate a seeded sample of so many cases; None for all.
        sample_seed: Of that sample.
        test: Whether the test part may be read.
    """

    def __init__(
        self,
        examples: Examples,
        sizes: Ints,
        *,
        queries: Queries,
        per_user: int,
        negatives: int,
        sampler: NegativeSampler,
        augmentation: HistoryAugmentation | None,
        texts: TrainingTexts | None,
        pool: Ints,
        batch_size: int,
        batch_tokens: int | None,
        costs: Ints,
        eval_batch_size: int,
        seed: int,
        lists: Mapping[int, CandidateLists],
        max_cases: int | None,
        sample_seed: int,
        test: bool,
    ) -> None:
        super().__init__()
        self.examples, self.sizes, self.queries, self.per_user = examples, sizes, queries, per_user
        self.negatives, self.batch_size, self.eval_batch_size = (
            negatives,
            batch_size,
            eval_batch_size,
        )
        self.sampler, self.pool, self.seed = sampler, pool, seed
        self.augmentation, self.texts = augmentation, texts
        self.batch_tokens, self.costs = batch_tokens, costs
        self.lists, self.max_cases, self.sample_seed = lists, max_cases, sample_seed
        self.test = test

    def get_ranks(self) -> tuple[int, int]:
        """This process among those that share the batches, and how many they are."""
        return 0, 1

    def get_position(self) -> Callable[[], tuple[int, int]] | None:
        """Tells the epoch to begin in and the batches done by then; None: at the beginning."""
        return None

    def make_epoch_order(self, epoch: int) -> Ints:
        """What an epoch trains on, shuffled; the same on every rank."""
        return self.examples.sample_epoch(self.queries, self.per_user, self.seed, epoch)

    @cached_property
    def plan(self) -> BatchPlan:
        """The global batches of every epoch."""
        if self.batch_tokens is None:
            count = self.examples.count_examples(self.queries, self.per_user)
            return FixedSizePlan(self.make_epoch_order, count, self.batch_size)
        return TokenBudgetPlan(
            self.make_epoch_order, partial(self._compute_ends, self.batch_tokens)
        )

    def _compute_ends(self, budget: int, epoch: int, order: Ints) -> Ints:
        """Ends of the batches of an epoch's order, by tokens."""
        items, counts, queries = self._list_encoded_texts(epoch, order)
        drawn = 0.0
        if self.negatives:
            drawn = self.negatives * float(self.costs[self.pool].mean())
        extra = np.ceil(queries * drawn).astype(np.int64)
        return compute_token_ends(items, counts, self.costs, extra, budget)

    def _list_encoded_texts(self, epoch: int, order: Ints) -> tuple[Ints, Ints, Ints]:
        """As `Examples.list_encoded_texts`, of the histories that an epoch trains from."""
        if self.augmentation is None:
            return self.examples.list_encoded_texts(self.queries, order)
        parts = []
        for part in np.split(order, range(_EXAMPLES, len(order), _EXAMPLES)):
            rows = self.examples.make_train_rows(self.queries, part)
            histories = self.examples.list_histories(rows)
            changed = self.augmentation.augment(rows, histories, epoch)
            inside = changed.history >= 0
            owner = np.concatenate([changed.origin[np.nonzero(inside)[0]], rows.row])
            items = np.concatenate([changed.history[inside], rows.candidates[:, 0]])
            parts.append(
                (
                    items[np.argsort(owner, kind="stable")],
                    np.bincount(owner, minlength=len(part)),
                    np.bincount(rows.row, minlength=len(part)),
                )
            )
        items, counts, asked = (np.concatenate(column) for column in zip(*parts, strict=True))
        return items, counts, asked

    def count_steps(self, epochs: int, accumulate: int, most: int) -> int:
        """Optimiser steps of a training, as `BatchPlan.count_steps`."""
        return self.plan.count_steps(epochs, accumulate, most)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of this rank; every rank has the same number of steps.

        With `batch_tokens` that number differs between epochs: the Trainer has to ask for the
        loader anew in each (`reload_dataloaders_every_n_epochs=1`).
        """
        batches = EpochBatchSampler(self.plan, *self.get_ranks(), self.get_position())
        return make_train_loader(batches, self.make_train_batch, self.seed)

    def make_train_batch(self, at: Ints, epoch: int) -> Batch:
        """The batch of some of an epoch's examples, with the negatives of that epoch."""
        rows = self.examples.make_train_rows(self.queries, at)
        drawn = None
        if self.negatives:
            drawn = self.sampler.sample(rows, self.negatives, self.seed, epoch)
        history = None
        if self.augmentation is not None:
            # Negatives are drawn before: they belong to the query, whatever it is trained from.
            changed = self.augmentation.augment(rows, self.examples.list_histories(rows), epoch)
            rows, history = changed.rows, changed.history
        batch = self.examples.make_batch(rows, self.sizes, drawn, history=history)
        if self.texts is None:
            return batch
        sizes = self.texts.count_tokens(batch.plan.items, epoch)
        plan = dataclasses.replace(batch.plan, sizes=sizes, epoch=epoch)
        return dataclasses.replace(batch, plan=plan)

    def make_case_loader(self, role: int, most: int | None = None) -> DataLoader[Batch]:
        """All cases of a role on this rank, each once over all ranks.

        A rank that would have none gets one that is not counted: it must take part in the step.

        Args:
            role: Of the cases.
            most: A seeded sample of so many of them; None for all.

        Raises:
            ConfigError: The run does not test, and its test cases are asked for.
        """
        if role == TEST and not self.test:
            raise ConfigError(
                "evaluation.test=false: this run only validates, and its test part is not read; "
                "set evaluation.test=true to test."
            )
        rank, world = self.get_ranks()
        lists, at = self.lists.get(role), self.list_case_events(role)
        mine = np.array_split(sample(np.arange(len(at)), most, self.sample_seed), world)[rank]
        filler = not len(mine)
        if filler:
            mine = np.zeros(1, dtype=np.int64)
        extras = {}
        if lists is None:
            rows = self.examples.make_case_rows(at[mine])
        else:
            chosen = lists.select(mine)
            rows = self.examples.make_list_rows(chosen)
            extras["inserted"] = torch.from_numpy(chosen.inserted)
            if chosen.missed is not None:
                extras["missed"] = torch.from_numpy(chosen.missed)
        if filler:
            rows = dataclasses.replace(rows, case=np.full(1, -1, dtype=np.int64))
        return DataLoader(_CaseDataset(self, rows, extras), batch_size=None)

    def list_case_events(self, role: int) -> Ints:
        """(N,) events at which the cases of a role are asked, by their numbers."""
        lists = self.lists.get(role)
        if lists is not None:
            return lists.at
        return self.examples.select_cases(role, self.max_cases, self.sample_seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation cases."""
        return self.make_case_loader(VAL)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test cases."""
        return self.make_case_loader(TEST)
