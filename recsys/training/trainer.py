"""Lightning's Trainer from typed options, and a training from its first validation to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from recsys.config.groups import TrainerOptions
from recsys.recommender.stepped import SteppedModule
from recsys.runtime.hardware import NAMES
from recsys.runtime.ranks import get_launch, get_rank
from recsys.tracking.csv_log import CsvLog
from recsys.tracking.metric_log import MetricLog
from recsys.training.checkpoint import BestCheckpoint
from recsys.training.logger import LogAdapter
from recsys.training.parallel.cluster import make_environment
from recsys.training.parallel.strategy import make_strategy
from recsys.training.resume import AtomicCheckpointIO, ResumeCheckpoint


def make_trainer(
    options: TrainerOptions,
    clip: float,
    callbacks: Sequence[Callback],
    logs: Sequence[MetricLog],
    profiler: Profiler | None = None,
) -> lp.Trainer:
    """A Trainer.

    Args:
        options: How long, on what, and in which precision.
        clip: Largest gradient norm; 0: no clipping.
        callbacks: In their order; the last one saves the state to go on from.
        logs: Where rows go.
        profiler: Takes the time of its stages.
    """
    loggers = [log if isinstance(log, Logger) else LogAdapter(log) for log in logs]
    return lp.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        strategy=make_strategy(options),
        precision=NAMES[options.precision],
        max_epochs=options.epochs,
        max_steps=-1 if options.max_steps is None else options.max_steps,
        accumulate_grad_batches=options.accumulate,
        gradient_clip_val=clip or None,
        deterministic=options.deterministic,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO(), make_environment(get_launch())],
        profiler=profiler,
        logger=loggers,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # Epochs cut by tokens differ in their number of batches; the loader is asked anew.
        reload_dataloaders_every_n_epochs=0 if options.batch_tokens is None else 1,
    )


def train(
    trainer: lp.Trainer,
    model: SteppedModule[Any],
    data: lp.LightningDataModule,
    last: Path,
    csv: CsvLog,
    best: BestCheckpoint,
    save: ResumeCheckpoint,
    untrained: Callable[[], bool],
) -> None:
    """Trains, or goes on, with a validation before the first and after the last step.

    Args:
        trainer: The Trainer, with `best` and `save` among its callbacks.
        model: What trains.
        data: Its batches.
        last: The state to go on from, if it is there.
        csv: The log whose rows an attempt without such a state has left.
        best: Compares validations.
        save: Saves the state.
        untrained: Whether nothing trains, so that the first validation is all; asked after it.
    """

    def validate(step: int) -> None:
        trainer.validate(model, data, verbose=False)
        best.update(trainer, model, step)

    resumed = last.is_file()
    if not resumed:
        csv.rewind(-1)  # of an attempt that left no checkpoint
        if get_rank() == 0:
            best.lines.rewind(-1)
        validate(0)
    if untrained():
        return
    trainer.fit(model, data, ckpt_path=str(last) if resumed else None, weights_only=True)
    if best.seen != trainer.global_step:  # max_steps ended it within an epoch
        validate(trainer.global_step)
        # A stop from here on must not validate and log that again.
        save.write(trainer)
