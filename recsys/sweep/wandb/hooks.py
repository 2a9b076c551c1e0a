"""A sweep at Weights & Biases: trials that were killed, the closing run, workspace and report."""

from __future__ import annotations

from recsys.boards import specification as board
from recsys.sweep.record import SweepRecord
from recsys.sweep.wandb.board import make_board
from recsys.sweep.wandb.close import close_trial
from recsys.sweep.wandb.summary import log_summary_run

__all__ = ["close_trial", "log_summary", "make_board"]


def log_summary(sweep: SweepRecord, project: str, group: str, mode: str) -> None:
    """Logs the closing run, and writes the workspace and report to push as `wandb.json`.

    Both replace what the sweep has left before.

    Args:
        sweep: As it stands.
        project: At Weights & Biases.
        group: Of the sweep's runs.
        mode: online, offline or off, which does nothing.

    Raises:
        ConfigError: The service cannot be reached or refuses, or no trial was logged.
        DataError: The disk is full.
    """
    if mode == "off":
        return
    log_summary_run(sweep, project, group, mode)
    board.write_board(make_board(sweep), sweep.folder)
