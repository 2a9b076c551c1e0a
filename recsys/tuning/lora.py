"""Low-rank updates of linear maps: LoRA (Hu et al. 2022), DoRA (Liu et al. 2024), rsLoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys.config.schema import Moves, TuningConfig, option
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of LoRA."""

    moves: ClassVar[Moves] = "tuned"

    layers: int | str = option("all", '"all", or the last N layers')
    rank: int = option(8, "rank of the update, up to the encoder's width", least=1)
    alpha: float = option(16.0, "the update is scaled by alpha / rank (rslora: its root)", above=0)
    dropout: float = option(0.0, "dropout on the input of the update", least=0, below=1)
    dora: bool = option(False, "train magnitude and direction apart")
    rslora: bool = option(False, "scale by alpha / sqrt(rank)")
    targets: Literal["attention", "linear"] = option(
        "linear", "maps of the attention, or all maps of the layer"
    )


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Adds low-rank updates to the chosen layers; the second factor is zero at first.

    Raises:
        ConfigError: The rank is larger than the encoder is wide, or the model's layers are of an
            unknown make.
    """
    from peft import LoraConfig
    from torch import nn

    from recsys.encoders.layers import (
        find_layer_stack,
        list_attention_linears,
        list_linears,
        select_layers,
    )
    from recsys.encoders.peft.injection import inject_method, merge_method
    from recsys.encoders.peft.lora_linear import FusedLoraLinear

    span = select_layers(encoder.model, cfg.layers)
    if cfg.rank > encoder.width:
        raise ConfigError(
            f"tuning.rank is {cfg.rank}; set it from 1 to {encoder.width}, this encoder's width, "
            "above which no map can have a larger rank."
        )
    path, stack = find_layer_stack(encoder.model)
    inside = list_attention_linears if cfg.targets == "attention" else list_linears
    # Full names: PEFT matches by suffix, and a short one also hits other maps.
    names = [f"{path}.{i}.{name}" for i in span for name in inside(stack[i])]
    settings = LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        use_dora=cfg.dora,
        use_rslora=cfg.rslora,
        target_modules=names,
    )
    settings._register_custom_module({nn.Linear: FusedLoraLinear})
    added = inject_method(encoder, settings, "tuning=lora")
    return encoder.train_only(added, added, "zero", lambda: merge_method(encoder))
