"""Full fine-tuning: all layers, or the last N, with or without the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys.config.schema import Moves, TuningConfig, option
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of full fine-tuning."""

    moves: ClassVar[Moves] = "encoder"

    layers: int | str = option("all", '"all", or the last N layers')
    embeddings: bool = option(False, "also train the embeddings (with all layers only)")


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Trains the chosen layers and what follows them (a final norm, dense maps of the folder).

    Raises:
        ConfigError: `layers` is no such number or word, or embeddings go with the last N.
    """
    from recsys.encoders.layers import compute_parameter_depths, select_layers

    first = select_layers(encoder.model, cfg.layers).start
    if cfg.embeddings and first > 0:
        raise ConfigError(
            f"tuning.embeddings is true with tuning.layers={cfg.layers}, which would leave frozen "
            'layers in the middle; set tuning.layers to "all" or tuning.embeddings to false.'
        )
    lowest = -1 if cfg.embeddings else first
    depths = compute_parameter_depths(encoder.model)
    trained = {f"model.{name}" for name, depth in depths.items() if depth >= lowest}
    trained |= {f"dense.{name}" for name, _ in encoder.dense.named_parameters()}
    return encoder.train_only(trained, (), "pretrained")
