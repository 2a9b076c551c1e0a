"""Figures of a run as a CSV file, a row a step, that survives a kill."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.runtime.files import write_atomic

FLUSH_SECONDS = 30.0


class CsvLog:
    """A row a step with whatever was logged at it; the file is always whole.

    Args:
        path: The file; what it holds is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        if path.is_file():
            self._rows = _read_rows(path)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds the values of a step; the file follows within half a minute."""
        values = {k: v for k, v in metrics.items() if k != "epoch"}
        if (
            self._rows
            and int(self._rows[-1]["step"]) == step
            and not values.keys() & self._rows[-1]
        ):
            self._rows[-1].update(values)
        else:
            self._rows.append({"step": 0 if step is None else step, **values})
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.save()

    def list_rows(self) -> list[tuple[int, dict[str, float]]]:
        """Step and values of each row, in the order in which they were logged."""
        return [
            (int(row["step"]), {name: float(row[name]) for name in row if name != "step"})
            for row in self._rows
        ]

    def rewind(self, step: int) -> None:
        """Forgets what was logged after a step, and the closing test, which ends every run anew."""
        self._rows = [
            {name: value for name, value in row.items() if not name.startswith("test/")}
            for row in self._rows
            if int(row["step"]) <= step
        ]

    def save(self) -> None:
        """Writes the file.

        Raises:
            DataError: The disk is full; the file of before stands.
        """
        self._flushed = time.monotonic()
        names = sorted({name for row in self._rows for name in row} - {"step"})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["step", *names])
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomic(self.path, text.getvalue())

    def finalize(self, status: str) -> None:
        """Writes the file at the end of each stage."""
        if self._rows:
            self.save()


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log as text, without the values that are not there.

    Raises:
        DataError: It is no table of numbers with a column of steps.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [{k: v for k, v in row.items() if v != ""} for row in reader]
        for row in rows:
            int(row["step"])
            for value in row.values():
                float(value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error):
        raise DataError(
            f"{path} is damaged, so that the run cannot go on with its log; start a new run, or "
            "move the file away to go on without the rows so far."
        ) from None
    return rows
