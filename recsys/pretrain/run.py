"""One pretraining in its folder: trains, folds in what was added, leaves the encoder, and tells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback, EarlyStopping

from recsys.config.choices import get_choice_name
from recsys.config.compose import make_node
from recsys.config.pretraining import PretrainConfig
from recsys.encoders.pretrained.source import WEIGHTS
from recsys.fit.progress_bars import ProgressBar, RemainingTime
from recsys.fit.result import TrainingProgress, compute_cost, summarize_validation
from recsys.pretrain.assemble import PretrainingAssembly
from recsys.pretrain.checks import find_inactive_settings
from recsys.pretrain.encoder_folder import write_encoder_folder
from recsys.pretrain.module import LOSS
from recsys.recommender.training_counts import TrainingCounts
from recsys.runs import provenance, results
from recsys.runs.validation_log import ValidationLog, read_validations
from recsys.runtime.files import ENCODER_FOLDER, LAST, PRETRAINING, VALIDATIONS
from recsys.runtime.progress import format_duration, mark_output, print_status
from recsys.runtime.signals import SignalHandler
from recsys.training.checkpoint import BestCheckpoint
from recsys.training.cost import CostMeter
from recsys.training.execution import Execution
from recsys.training.log import TrainingLog, count_trained_epochs
from recsys.training.resume import ResumeCheckpoint
from recsys.training.seeding import BatchSeeder
from recsys.training.trainer import make_trainer, train


class PretrainingExecutor(Execution):
    """A pretraining: in one process, and again after every stop.

    Args:
        run: Its resolved configuration.
        folder: Its folder.
        made: What the assembler made of it.
        signals: What may end it.

    Raises:
        ConfigError: The data is not what it was before the stop.
    """

    def __init__(
        self, run: PretrainConfig, folder: Path, made: PretrainingAssembly, signals: SignalHandler
    ) -> None:
        super().__init__(run.tracking, False, folder, made.fingerprint, signals, PRETRAINING)
        self.run, self.made = run, made
        self.save = ResumeCheckpoint(
            folder / LAST, run.checkpoint.every_minutes, signals, self._record_cost
        )
        self.best = BestCheckpoint(
            self.weights,
            f"val/{LOSS}",
            run.checkpoint.pick,
            ValidationLog(folder / VALIDATIONS),
            self.save.get_total_seconds,
            self._print_validation,
            smallest=True,
        )
        self.course = RemainingTime(False)
        self.rows = TrainingLog(run.trainer.log_every, self.save.get_total_seconds)
        self.meter = CostMeter(False)

    def _describe(self) -> Sequence[str]:
        """What the data says, what changes nothing, and what is read and trained."""
        run, made = self.run, self.made
        every, count = made.model.count_parameters()
        data = made.data
        return [
            *made.split.notes,
            *find_inactive_settings(run),
            f"{get_choice_name(run.pretraining)}: {data.task.describe()}; "
            f"{len(data.held):,} examples are held out",
            f"on: {run.trainer.accelerator}, {run.trainer.precision}; {count:,} of {every:,} "
            f"parameters train ({count / every:.2%}), those of heads included",
        ]

    def _make_node(self) -> Mapping[str, Any]:
        """The resolved configuration as plain values."""
        return make_node(self.run)

    def _evaluate_baselines(self) -> None:
        """Nothing: a loss stands beside no other."""

    def _abort(self) -> None:
        """Nothing: no other process works for it."""

    def _count_training(self) -> TrainingCounts:
        return self.meter.compute_total()

    def _run(self) -> None:
        """Trains, and leaves the encoder."""
        trainer = self._make_trainer()
        self.watch.end_startup()
        model, last = self.made.model, self.folder / LAST
        train(trainer, model, self.made.data, last, self.csv, self.best, self.save, lambda: False)
        progress = TrainingProgress(
            trainer.global_step,
            model.count_planned_steps(),
            count_trained_epochs(trainer),
            self.save.get_total_seconds(),
        )
        parameters = model.count_parameters()
        model.load_trained(self.weights)
        self._write_encoder()
        self._finish(progress, parameters)

    def _write_encoder(self) -> None:
        """Folds what was added into the weights, and writes the encoder's folder."""
        print_status("writing the encoder")
        self.made.model.eval().cpu()
        if self.made.tuned.merge is not None:
            self.made.tuned.merge()
        write_encoder_folder(
            self.folder / ENCODER_FOLDER, self.made.loaded, self.run.encoder.pooling
        )

    def _finish(self, progress: TrainingProgress, parameters: tuple[int, int]) -> None:
        """Writes the result, and says what came out."""
        self._record_cost()
        counts = self._count_training()
        notes = self._list_remarks()
        made, best = self.made, self.best
        before = provenance.summarize_pretraining(made.loaded.files)
        weights = self.folder / ENCODER_FOLDER / WEIGHTS
        with weights.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        result: dict[str, Any] = {
            "pretraining": {
                "name": get_choice_name(self.run.pretraining),
                "reads": made.data.task.describe(),
                "examples": len(made.data.examples),
                "held_out": len(made.data.held),
                "encoder_sha256": checksum,
            },
            "validation": summarize_validation(best, progress),
            "train": {"loss": self.rows.compute_loss(), "distance": self.rows.distance},
            "cost": compute_cost(1, parameters, self.start, counts, progress, (), self.startup),
            "data": {
                "fingerprint": made.fingerprint,
                "split": made.split.name,
                **provenance.compute_data_digests(made.split, {}),
            },
            "encoder": provenance.identify_encoder(made.loaded.files, made.loaded.following),
            **({"built_on": before} if before else {}),
            "versions": provenance.collect_versions(),
            "code": provenance.find_commit(),
            "notes": notes,
        }
        results.write_result(self.folder, result, None)
        (self.folder / LAST).unlink(missing_ok=True)
        table = {"step 0": best.first, f"step {best.step}": best.metrics}
        for row, metrics in table.items():
            print(f"{row}: loss of what is held out {metrics[LOSS]:.4f}")
        print(*notes, sep="\n", end="\n" if notes else "")
        print(f"use it: python -m recsys.fit ... encoder.model={self.folder}")
        wanted = self.run.tracking.checkpoint_artifact
        self._send_result(result, table, weights if wanted else None)
        self.weights.unlink(missing_ok=True)  # the encoder's folder has all that is left of it

    def _list_remarks(self) -> list[str]:
        """Whether training helped, and whether it should have gone on."""
        values = [line.value for line in read_validations(self.folder / VALIDATIONS)]
        options = self.run.trainer
        if values[-1] < min(values[:-1]):
            longer = f"trainer.epochs={2 * options.epochs}"
            if options.max_steps is not None:
                longer = f"trainer.max_steps={2 * options.max_steps}"
            return [f"still falling at the last validation: train longer ({longer})."]
        if self.run.checkpoint.pick == "best" and values[0] <= min(values[1:]):
            return [
                "the best validation was before the first step: the encoder is as it was, and "
                "pretraining did not help; lower optimizer.lr."
            ]
        return []

    def _print_validation(
        self, trainer: lp.Trainer, metrics: Mapping[str, float], step: int, kept: bool
    ) -> None:
        """Prints what a validation measured."""
        at = f"epoch {count_trained_epochs(trainer):.3g}/{trainer.max_epochs}" if step else "start"
        if step and trainer.max_steps >= 0:
            at = f"step {step}/{trainer.max_steps}"
        parts = [at, f"val loss {metrics[LOSS]:.4f}"]
        if step and kept and self.run.checkpoint.pick == "best":
            parts[-1] += " (best)"
        left = self.course.estimate_seconds(trainer)
        if left is not None:
            parts.append(f"left {format_duration(left)}")
        print("  ".join(parts), flush=True)
        mark_output()

    def _make_trainer(self) -> lp.Trainer:
        """A Trainer from typed options."""
        options = self.run.trainer
        callbacks: list[Callback] = [self.meter, BatchSeeder(self.run.seed), self.rows, self.best]
        if options.patience is not None:
            callbacks.append(
                EarlyStopping(
                    self.best.monitor,
                    mode="min",
                    patience=options.patience,
                    check_on_train_epoch_end=False,
                )
            )
        bar = ProgressBar(self.course)
        return make_trainer(
            options, self.run.optimizer.clip, [bar, *callbacks, self.save], self._open_logs()
        )
