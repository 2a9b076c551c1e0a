"""A run of what does not train: one pass over its cases, without a Trainer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recsys.assembly.device import select_device
from recsys.assembly.stored_runs import name_runs
from recsys.data.batches.examples import VAL
from recsys.fit import remarks
from recsys.fit.header import format_validation
from recsys.fit.result import FinalTest, TrainingProgress
from recsys.fit.run import RunExecutor, track_batches
from recsys.metrics.names import list_cutoffs
from recsys.recommender.fitted import Fit, FittedRecommender, restore_fit, write_fit
from recsys.runs.validation_log import ValidationLog, check_value
from recsys.runtime.files import FIT, VALIDATIONS
from recsys.runtime.progress import mark_output, track
from recsys.runtime.stopwatch import EVALUATION
from recsys.tracking.metric_log import MetricLog
from recsys.types import Batch

SHOWN = 6
"""Members in the closing table of an ensemble, the best: more columns are hard to read."""


@dataclass
class Validation:
    """The only validation of a run, or none; see `BestValidation`."""

    monitor: str
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    first: dict[str, float] = field(default_factory=dict)
    last: float | None = None


class BaselineExecutor(RunExecutor):
    """A run of an architecture that does not train: its test, or its validation without one.

    Attributes:
        fitted: What validation cases decided; None where nothing is open to them.
    """

    fitted: Fit | None = None

    def _run(self) -> None:
        """Ranks the cases and finishes; Lightning is not imported for it."""
        options = self.run.evaluation
        self.best = Validation(f"val/{options.monitor}")
        logs = self._open_logs()
        self.csv.rewind(-1)  # of an attempt that was stopped
        self.watch.end_startup()
        fit = self._fit()
        with self.watch.time_stage(EVALUATION):
            if fit is not None and not options.test:
                metrics = dict(fit.validation)
            else:
                metrics = self._evaluate("test" if options.test else "validation")
        self._log(logs, "test/" if options.test else "val/", metrics)
        if options.test:
            members = self._list_members(metrics)
            worth = {name: np.nan_to_num(own[options.metric]) for name, own in members.items()}
            best = sorted(members, key=lambda name: -worth[name])[:SHOWN]
            shown = {name: members[name] for name in members if name in best}
            self._finish({**shown, self.folder.name: metrics}, TrainingProgress())
            return
        self._tell_validation(metrics)
        self._finish({"step 0": metrics}, TrainingProgress())

    def _fit(self) -> Fit | None:
        """Lets validation cases decide what is open, or takes what they decided before a stop."""
        model = self.made.recommender
        if not isinstance(model, FittedRecommender) or not model.needs_fit:
            return None
        model.to(select_device(self.run) or torch.device("cpu"))
        if (self.folder / FIT).is_file():
            fit = restore_fit(model, self.folder)
        else:
            fit = self._decide(model)
            write_fit(self.folder, fit)
        self.fitted = fit
        if self.run.evaluation.test:
            value = fit.validation.get(self.run.evaluation.monitor)
            self.best = Validation(self.best.monitor, {**fit.validation}, 0, {}, value)
        return fit

    def _decide(self, model: FittedRecommender) -> Fit:
        """Fits a recommender on validation cases, and measures on all what few have decided."""
        data, most = self.made.datamodule, model.most_cases
        device = select_device(self.run) or torch.device("cpu")
        fit = model.fit(
            lambda: _move(data.make_case_loader(VAL, most), device), self.run.evaluation.monitor
        )
        cases = len(data.list_case_events(VAL))
        if most is None or cases <= most:
            return fit
        note = f"chosen on a sample of {most:,} of {cases:,} validation cases (data.sample_seed)."
        with self.watch.time_stage(EVALUATION):
            metrics = self._evaluate("validation")
        return replace(fit, validation=metrics, notes=(note, *fit.notes))

    def _list_members(self, names: Iterable[str]) -> dict[str, Mapping[str, float]]:
        """Test metrics of the runs whose scores it combines, as their own tests had them.

        Args:
            names: Metrics that are wanted; NaN for one that a member did not measure.
        """
        if not self.run.architecture.member_runs:
            return {}
        sources = self.made.sources
        return {
            name: {each: stored.result["test"].get(each, math.nan) for each in names}
            for name, stored in zip(name_runs(sources), sources, strict=True)
            if "test" in stored.result  # of a run that only validated there is none
        }

    def _list_remarks(self, tested: FinalTest | None) -> list[str]:
        """What the reader of the closing table should not miss."""
        notes = [] if self.fitted is None else list(self.fitted.notes)
        if tested is None:
            return notes
        members = self._list_members(tested.test)
        metric, left = self.run.evaluation.metric, len(members) - SHOWN
        if left > 0:
            notes.append(
                f"the table has the best {SHOWN} members by {metric}; {left} are left out."
            )
        return [
            *remarks.describe_shortfalls(metric, tested.test, members, "", tested.cases),
            *notes,
        ]

    def _abort(self) -> None:
        """Nothing: no other process works for it."""

    def _summarize_fit(self) -> dict[str, object]:
        """What validation cases decided."""
        return {} if self.fitted is None else {"fit": self.fitted.summarize()}

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
