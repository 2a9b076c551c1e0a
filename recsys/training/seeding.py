"""Random numbers that depend on the step alone, so that a resumed run draws the same."""

from __future__ import annotations

import lightning.pytorch as lp
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from recsys.types import Batch


class BatchSeeder(Callback):
    """Seeds torch for each batch, so that dropout does not depend on where a run was stopped.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lp.Trainer, pl_module: lp.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Seeds from (seed, epoch, batch, rank)."""
        key = [self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        if trainer.strategy.root_device.type == "cpu":
            # `torch.manual_seed` also notes for every other kind of device, with the whole call
            # stack, that it has to be seeded once it is there: a tenth of a millisecond and more.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
