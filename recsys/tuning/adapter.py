"""Bottleneck adapters: Houlsby et al. 2019 (two a layer) and Pfeiffer et al. 2021 (one)."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    layers: int | str = field(default="all", metadata={"help": '"all", or the last N layers'})
    placement: Literal["houlsby", "pfeiffer"] = field(
        default="pfeiffer",
        metadata={"help": "behind attention and feed-forward, or behind feed-forward only"},
    )
    width: int = option(64, "width of the bottleneck", least=1, most=WIDEST)
    activation: str = field(default="gelu", metadata={"help": "gelu, relu, silu, ..."})
    dropout: float = field(default=0.0, metadata={"help": "dropout inside the bottleneck"})


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Adds adapters to the chosen layers; each is the identity at first.

    Raises:
        ConfigError: A value is out of its range, or the model's layers are of an unknown make.
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
    _check_config(cfg)
    if cfg.width < 1:
        raise ConfigError(f"tuning.width is {cfg.width}; set it to 1 or more.")
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


def _check_config(cfg: Config) -> None:
    if cfg.placement not in ("houlsby", "pfeiffer"):
        raise ConfigError(f"tuning.placement is {cfg.placement!r}; choose houlsby or pfeiffer.")
    if not 0 <= cfg.dropout < 1:
        raise ConfigError(f"tuning.dropout is {cfg.dropout}; set it from 0 to below 1.")
