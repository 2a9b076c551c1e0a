"""What watches a training: the best checkpoint, and the precision that the hardware has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning.pytorch as lp
import torch
from lightning.pytorch.callbacks import Callback

from recsys.recommender import Recommender

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
NAMES: dict[str, Precision] = {
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "fp16-mixed": "16-mixed",
}


def precision(asked: str, accelerator: str) -> Precision:
    """Lightning's name of a precision; auto is bf16-mixed on a GPU that has it, else fp32.

    A CPU without bf16 instructions is 10 to 25 times slower in bf16, so auto never picks it there.
    """
    if asked != "auto":
        return NAMES[asked]
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return NAMES["bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"]


class Best(Callback):
    """Keeps the trained parameters of the best validation.

    Args:
        path: Where the safetensors file lies.
        monitor: The logged metric to maximise.

    Attributes:
        value: The best so far, or None.
        step: The optimiser step it was seen at.
    """

    def __init__(self, path: Path, monitor: str) -> None:
        self.path, self.monitor = path, monitor
        self.value: float | None = None
        self.step = 0

    def offer(self, trainer: lp.Trainer, recommender: Recommender, step: int) -> None:
        """Compares the last validation with the best and saves if it is better."""
        value = float(trainer.callback_metrics[self.monitor])
        if self.value is not None and not value > self.value:
            return
        self.value, self.step = value, step
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            recommender.save_trained(self.path)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Offers a validation of the training loop."""
        if trainer.state.fn == "fit" and isinstance(pl_module, Recommender):
            self.offer(trainer, pl_module, trainer.global_step)
