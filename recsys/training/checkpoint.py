"""The best checkpoint: which validation it was, and what came with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lp
from lightning.pytorch.callbacks import Callback

from recsys.errors import ConfigError
from recsys.recommender.optim import make_divergence_error
from recsys.recommender.stepped import SteppedModule
from recsys.runs.validation_log import ValidationLog, check_value
from recsys.runtime.ranks import get_rank
from recsys.training.log import count_trained_epochs


class BestCheckpoint(Callback):
    """Keeps the trained parameters of the best validation, or of the last one.

    Metrics are compared as Lightning rounds them, to single precision, as early stopping does: the
    order in which ranks add their cases up must not decide.

    Args:
        path: Where the safetensors file lies.
        monitor: The logged metric that decides.
        pick: Whether the best validation decides, or none does.
        lines: Where each validation is told.
        seconds: Tells the time trained so far.
        tell: Is told the metrics of each validation, its step and whether it is to be kept; on the
            first rank.
        smallest: Whether the smallest value of the metric is the best, as of a loss.

    Attributes:
        value: The best so far, rounded; None before the first validation.
        metrics: All metrics of that validation, in double precision.
        step: The optimiser step it was seen at.
        first: All metrics of the first validation, before the first step.
        last: The monitored metric at the last validation.
        seen: The step of the last validation.
    """

    STATE = ("value", "metrics", "step", "first", "last", "seen")

    def __init__(
        self,
        path: Path,
        monitor: str,
        pick: Literal["best", "last"],
        lines: ValidationLog,
        seconds: Callable[[], float],
        tell: Callable[[lp.Trainer, Mapping[str, float], int, bool], None],
        smallest: bool = False,
    ) -> None:
        self.path, self.monitor, self.pick = path, monitor, pick
        self.lines, self.seconds, self.tell = lines, seconds, tell
        self.smallest = smallest
        self.value: float | None = None
        self.metrics: dict[str, float] = {}
        self.step = 0
        self.first: dict[str, float] = {}
        self.last: float | None = None
        self.seen: int | None = None

    def update(self, trainer: lp.Trainer, recommender: SteppedModule[Any], step: int) -> None:
        """Compares the last validation with the best and saves if it is to be kept.

        Raises:
            DataError: The metric has no value, so that nothing can be compared.
            DivergenceError: It has lost its value in training.
        """
        value, metrics = float(trainer.callback_metrics[self.monitor]), recommender.validated
        exact = metrics[self.monitor.removeprefix("val/")]
        if math.isnan(value) and step:
            raise make_divergence_error(
                f"{self.monitor} has no value any more", step, trainer.optimizers
            )
        check_value(self.monitor, value)
        before, sign = self.value, -1 if self.smallest else 1
        kept = self.pick == "last" or before is None or sign * value > sign * before
        if trainer.is_global_zero:
            self.lines.add(step, count_trained_epochs(trainer), exact, self.seconds())
            self.tell(trainer, metrics, step, kept)
        self.first = self.first or metrics
        self.last, self.seen = exact, step
        if not kept:
            return
        self.value, self.metrics, self.step = value, metrics, step
        recommender.save_trained(self.path, trainer.is_global_zero)

    def on_validation_end(self, trainer: lp.Trainer, pl_module: lp.LightningModule) -> None:
        """Offers a validation of the training loop."""
        if trainer.state.fn == "fit" and isinstance(pl_module, SteppedModule):
            self.update(trainer, pl_module, trainer.global_step)

    @property
    def state_key(self) -> str:
        """Its name in a saved state, which is part of the format."""
        return "Best"

    def state_dict(self) -> dict[str, Any]:
        """The best value and its step, and what the first and the last validation found."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave, and takes back the lines of later validations.

        Raises:
            ConfigError: An older version wrote it.
        """
        if set(state_dict) != set(self.STATE):
            raise ConfigError(
                f"{self.path.parent}: the state to go on from is of another version; start a new "
                "run."
            )
        for name, value in state_dict.items():
            setattr(self, name, value)
        if get_rank() == 0:
            self.lines.rewind(-1 if self.seen is None else self.seen)
