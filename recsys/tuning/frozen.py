"""No tuning: the encoder stays as it was pretrained, only what stands on it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys.config.schema import Moves, TuningConfig
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """A frozen encoder has no settings."""

    moves: ClassVar[Moves] = "nothing"


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Freezes every parameter of the encoder.

    Raises:
        ConfigError: The pooling is learned, and would stay a mean for ever.
    """
    if any(True for _ in encoder.pooling.parameters()):
        raise ConfigError(
            "encoder.pooling=attention is learned but tuning=frozen trains nothing; choose "
            "encoder.pooling=mean or another tuning."
        )
    return encoder.train_only((), (), "pretrained")
