"""The one LightningDataModule that every tuning method and architecture shares."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as lp

from recsys.data.batches.batch_loaders import BatchLoaders


class RecDataModule(BatchLoaders, lp.LightningDataModule):
    """Batches of a run that trains: shared by the Trainer's ranks, and from where it goes on."""

    def get_ranks(self) -> tuple[int, int]:
        """The Trainer's; one process where there is none."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def get_position(self) -> Callable[[], tuple[int, int]] | None:
        """Where the Trainer is; asked later than the loader is made.

        A run that goes on restores the loop's counters only after that.
        """
        return None if self.trainer is None else self._find_position

    def _find_position(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 0
        epoch = self.trainer.current_epoch
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            # max_steps ended an epoch early, which counts as done: nothing is read any more.
            return epoch, self.plan.count_earlier_batches(epoch)
        return epoch, int(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)
