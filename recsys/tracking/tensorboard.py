"""Figures of a run as a TensorBoard log."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from recsys.errors import ConfigError


def make_tensorboard_logger(folder: Path) -> TensorBoardLogger:
    """Files for TensorBoard in the run's folder.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(folder, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise ConfigError(
            "tracking.tensorboard needs the package tensorboard; run pip install tensorboard."
        ) from None
