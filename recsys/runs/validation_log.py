"""What each validation found, as lines that another process can read while the run goes on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import DataError
from recsys.runtime.files import translate_write_errors, write_atomic

if TYPE_CHECKING:
    from recsys.data.batches.batching import BatchPlan


def check_value(monitor: str, value: float) -> None:
    """Refuses a validation without a value of the metric that decides.

    Raises:
        DataError: It has none.
    """
    if math.isnan(value):
        raise DataError(
            f"{monitor} is defined for no case of the validation, so that no checkpoint can be "
            "picked; set evaluation.monitor to another metric or data.split to another split."
        )


class ValidationLog:
    """The lines of a run's validations, in order; each is there whole the moment it is written.

    A line is a JSON object: `step` (optimiser steps done), `epoch` (passes over the training
    queries, with fractions), `value` (of the monitored metric), `seconds` (trained until then).

    Args:
        path: The file; it is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: int, epoch: float, value: float, seconds: float) -> None:
        """Adds a line by one write.

        Raises:
            DataError: The disk is full.
        """
        line = json.dumps({"step": step, "epoch": epoch, "value": value, "seconds": seconds})
        with translate_write_errors(self.path), self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def rewind(self, step: int) -> None:
        """Cuts what comes after a step, and a line that a crash left unfinished.

        Raises:
            DataError: The disk is full, or a line is damaged.
        """
        if not self.path.is_file():
            return
        try:
            text = self.path.read_text(encoding="utf-8")
            lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.path} is damaged; start a new run, or delete the file to go on without "
                "the validations so far."
            ) from None
        if kept != text:
            write_atomic(self.path, kept)


@dataclass(frozen=True)
class ValidationRecord:
    """A validation that a run has told.

    Attributes:
        step: Optimiser steps until then.
        epoch: Passes over the training queries until then, with fractions.
        value: Of the monitored metric.
        seconds: Trained until then.
    """

    step: int
    epoch: float
    value: float
    seconds: float


def read_validations(path: Path) -> list[ValidationRecord]:
    """The validations of a file that a run may be writing, whole lines only; none without it."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [
        ValidationRecord(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()
    ]


def compute_epochs(plan: BatchPlan, batches: int) -> float:
    """Passes over the training queries that so many batches make, from the first one on."""
    epoch = 0
    while batches and batches >= plan.count_batches(epoch):
        batches -= plan.count_batches(epoch)
        epoch += 1
    return epoch + (batches / plan.count_batches(epoch) if batches else 0.0)
