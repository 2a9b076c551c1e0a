"""The last layers train in full, whatever lies below them stays as it was pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys.config.schema import Moves, TuningConfig, option

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of training the last layers."""

    moves: ClassVar[Moves] = "encoder"

    layers: int = option(2, "how many layers train, from the last down", least=1)
    norm: bool = option(True, "also train the norm behind the last layer, if there is one")


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Trains every parameter of the last layers.

    Raises:
        ConfigError: `layers` is no number from 1 to the encoder's depth.
    """
    from recsys.encoders.layers import compute_parameter_depths, select_layers

    first = select_layers(encoder.model, cfg.layers).start
    end = encoder.depth + 1 if cfg.norm else encoder.depth
    depths = compute_parameter_depths(encoder.model)
    trained = {f"model.{name}" for name, depth in depths.items() if first <= depth < end}
    return encoder.train_only(trained, (), "pretrained")
