"""A run of what does not train: one pass over its cases, without a Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from recsys.assembly.device import select_device
from recsys.fit.header import format_validation
from recsys.fit.result import TrainingProgress
from recsys.fit.run import RunExecutor, track_batches
from recsys.metrics.names import list_cutoffs
from recsys.runs.validation_log import ValidationLog, check_value
from recsys.runtime.files import VALIDATIONS
from recsys.runtime.progress import mark_output, track
from recsys.runtime.stopwatch import EVALUATION
from recsys.tracking.metric_log import MetricLog
from recsys.types import Batch


@dataclass
class Validation:
    """The only validation of a run, or none; see `BestValidation`."""

    monitor: str
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: float | None = None


class BaselineExecutor(RunExecutor):
    """A run of an architecture that does not train: its test, or its validation without one."""

    def _run(self) -> None:
        """Ranks the cases and finishes; Lightning is not imported for it."""
        options = self.run.evaluation
        self.best = Validation(f"val/{options.monitor}")
        logs = self._open_logs()
        self.csv.rewind(-1)  # of an attempt that was stopped
        self.watch.end_startup()
        with self.watch.time_stage(EVALUATION):
            metrics = self._evaluate("test" if options.test else "validation")
        self._log(logs, "test/" if options.test else "val/", metrics)
        if options.test:
            self._finish({self.folder.name: metrics}, TrainingProgress())
            return
        self._tell_validation(metrics)
        self._finish({"step 0": metrics}, TrainingProgress())

    def _abort(self) -> None:
        """Nothing: no other process works for it."""

    def _evaluate(self, part: str) -> dict[str, float]:
        """Metrics of the test or the validation, in double precision."""
        options, model = self.run.evaluation, self.made.recommender
        data, device = self.made.datamodule, select_device(self.run) or torch.device("cpu")
        batches = data.test_dataloader() if part == "test" else data.val_dataloader()
        keeps = part == "test" and options.beyond and options.protocol == "catalog"
        with track(part, len(batches), "batches") as task:
            return model.to(device).evaluate(
                _move(track_batches(batches, task), device),
                keep=max(list_cutoffs(options)) if keeps else 0,
            )

    def _log(self, logs: list[MetricLog], prefix: str, metrics: Mapping[str, float]) -> None:
        """Writes a row of all metrics, in the single precision that a training logs them in."""
        row = {f"{prefix}{name}": float(np.float32(value)) for name, value in metrics.items()}
        seconds = {} if self.run.evaluation.test else {"seconds": 0.0}
        for log in logs:
            log.log_metrics({**row, **seconds}, 0)
            log.finalize("success")

    def _tell_validation(self, metrics: dict[str, float]) -> None:
        """Notes and prints the validation.

        Raises:
            DataError: Its metric has no value.
        """
        monitor = self.run.evaluation.monitor
        value = metrics[monitor]
        check_value(self.best.monitor, value)
        self.best = Validation(self.best.monitor, metrics, 0, metrics, value)
        lines = ValidationLog(self.folder / VALIDATIONS)
        lines.rewind(-1)  # of an attempt that was stopped
        lines.add(0, 0.0, value, 0.0)
        print(format_validation("start", monitor, metrics, False, None), flush=True)
        mark_output()


def _move(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on a device."""
    for batch in batches:
        yield batch.to(device)
