"""The one LightningDataModule that every tuning method and architecture shares."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as lp

from recsys.data.batches.batch_loaders import BatchLoaders
from recsys.data.batches.batching import PlannedBatches


class RecDataModule(BatchLoaders, lp.LightningDataModule):
    """Batches of a run that trains: shared by the Trainer's ranks, and from where it goes on."""

    def get_ranks(self) -> tuple[int, int]:
        """The Trainer's; one process where there is none."""
        return get_ranks(self.trainer)

    def get_position(self) -> Callable[[], tuple[int, int]] | None:
        """Where the Trainer is; asked later than the loader is made.

        A run that goes on restores the loop's counters only after that.
        """
        return make_position(self.trainer, self)


def get_ranks(trainer: lp.Trainer | None) -> tuple[int, int]:
    """This process among those that share the batches, and how many they are."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def make_position(
    trainer: lp.Trainer | None, data: PlannedBatches
) -> Callable[[], tuple[int, int]] | None:
    """What tells the epoch that a Trainer is in and the batches read by then; None without one."""

    def find_position() -> tuple[int, int]:
        if trainer is None:
            return 0, 0
        epoch = trainer.current_epoch
        if 0 <= trainer.max_steps <= trainer.global_step:
            # max_steps ended an epoch early, which counts as done: nothing is read any more.
            return epoch, data.plan.count_earlier_batches(epoch)
        return epoch, int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)

    return None if trainer is None else find_position
