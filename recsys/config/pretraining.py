"""The typed schema of a pretraining: an encoder trains on item texts, without a recommender."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from recsys.config.groups import (
    CheckpointOptions,
    EncoderOptions,
    OptimizerOptions,
    RegularizationOptions,
    TrackingOptions,
    TrainerOptions,
    option,
)
from recsys.config.schema import Choice, DataOptions, TuningConfig


@dataclass
class PretrainingConfig(Choice):
    """What the `Config` of every way to pretrain has, and says of itself."""

    val_share: float = option(
        0.05,
        "share held out, whose loss each validation measures: of the item texts, or of the users "
        "where pairs of their events are read",
        above=0,
        below=1,
    )

    @property
    def reads_events(self) -> bool:
        """Whether training events feed it; else item texts alone do."""
        return False

    @property
    def pools(self) -> bool:
        """Whether its loss reads vectors of texts, and not states of tokens."""
        return True

    @property
    def contrasts(self) -> bool:
        """Whether a text is told from the others of its batch."""
        return False

    def check(self, run: PretrainConfig) -> None:
        """Refuses settings that do not go with the run's others; here none.

        Args:
            run: The whole pretraining, of which this is the way.

        Raises:
            ConfigError: They do not; the sentence names both keys.
        """


if TYPE_CHECKING:
    _Tuning: TypeAlias = TuningConfig
    _Pretraining: TypeAlias = PretrainingConfig
else:  # for OmegaConf, a node of any keys: `compose_root` makes the Config of its choice of it
    _Tuning = _Pretraining = Any


@dataclass
class PretrainConfig:
    """Everything that one pretraining needs; groups and keys are those of a run."""

    experiment: str | None = option(
        None,
        "name of a file in experiments/pretraining/, here or shipped, or path/to/own.yaml",
        blank=True,
    )
    output: str = option("pretrained", "folder in which the pretraining's own folder is made")
    seed: int = option(0, "of batches, masks and added weights", least=0, most=2**32 - 1)
    data: DataOptions = field(default_factory=DataOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    tuning: _Tuning = option({"name": "full"}, "what of the encoder trains (axis)")
    pretraining: _Pretraining = option({"name": "co_occurrence"}, "the loss (axis)")
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    regularization: RegularizationOptions = field(default_factory=RegularizationOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
