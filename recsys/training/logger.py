"""Logs of a run as Lightning's Trainer knows them."""

from __future__ import annotations

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

from recsys.tracking.metric_log import MetricLog


class LogAdapter(Logger):
    """A log of ours in place of a Logger; only the first rank writes.

    Args:
        log: The log.
    """

    def __init__(self, log: MetricLog) -> None:
        super().__init__()
        self.log = log

    @property
    def name(self) -> str:
        """What Lightning calls it."""
        return type(self.log).__name__

    @property
    def version(self) -> str:
        """There is one a run."""
        return "log"

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Nothing: the configuration is a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hands the figures of a step on."""
        self.log.log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Has the log write what it holds."""
        self.log.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Tells the log that a stage is over."""
        self.log.finalize(status)
