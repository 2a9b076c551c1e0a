"""Bottleneck adapters: Houlsby et al. 2019 (two a layer) and Pfeiffer et al. 2021 (one)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys.config.schema import WIDEST, Moves, TuningConfig, option
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of the adapters."""

    moves: ClassVar[Moves] = "tuned"

    layers: int | str = option("all", '"all", or the last N layers')
    placement: Literal["houlsby", "pfeiffer"] = option(
        "pfeiffer", "behind attention and feed-forward, or behind feed-forward only"
    )
    width: int = option(64, "width of the bottleneck", least=1, most=WIDEST)
    activation: str = option("gelu", "gelu, relu, silu, ...")
    dropout: float = option(0.0, "dropout inside the bottleneck", least=0, below=1)


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Adds adapters to the chosen layers; each is the identity at first.

    Raises:
        ConfigError: The activation is unknown, or the model's layers are of an unknown make.
    """
    from transformers.activations import ACT2FN

    from recsys.encoders.layers import (
        find_feed_forward_output,
        find_layer_stack,
        find_output_linears,
        select_layers,
    )
    from recsys.encoders.peft.bottleneck import BottleneckConfig
    from recsys.encoders.peft.injection import inject_method

    span = select_layers(encoder.model, cfg.layers)
    if cfg.activation not in ACT2FN:
        raise ConfigError(
            f"tuning.activation is {cfg.activation!r}; choose one of {', '.join(sorted(ACT2FN))}."
        )
    path, stack = find_layer_stack(encoder.model)
    names: list[str] = []
    for i in span:
        both = cfg.placement == "houlsby"
        places = find_output_linears(stack[i]) if both else (find_feed_forward_output(stack[i]),)
        names += [f"{path}.{i}.{place}" for place in places]
    settings = BottleneckConfig(
        width=cfg.width, activation=cfg.activation, dropout=cfg.dropout, target_modules=names
    )
    added = inject_method(encoder, settings, "tuning=adapter")
    return encoder.train_only(added, added, "zero")
