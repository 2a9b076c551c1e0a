"""What every log of a run's figures can do."""

from __future__ import annotations

from typing import Protocol


class MetricLog(Protocol):
    """Where figures go: a CSV file, Weights & Biases or TensorBoard; on the first rank only."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Takes the figures of an optimiser step.

        Args:
            metrics: By name.
            step: Optimiser steps done.
        """
        ...

    def save(self) -> None:
        """Writes what it holds."""
        ...

    def finalize(self, status: str) -> None:
        """Writes what it holds at the end of a stage.

        Args:
            status: How it ended, such as "success".
        """
        ...
