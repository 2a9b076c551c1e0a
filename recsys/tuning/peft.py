"""Any other method of the PEFT library, by its name there and its own options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from recsys.config.schema import Moves, TuningConfig, option
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of a method of the library."""

    moves: ClassVar[Moves] = "tuned"
    example: ClassVar[tuple[str, ...]] = ("method=vera", "options.r=4")

    method: str = option("", "its name in PEFT: vera, oft, boft, loha, lokr, hra, ...")
    layers: int | str = option("all", '"all", or the last N layers')
    targets: Literal["auto", "attention", "linear"] = option(
        "auto",
        "maps of the attention, or all maps of the layer; auto: all maps, or the norms "
        "where the method tunes those",
    )
    options: dict[str, Any] = option({}, "the method's own, as in tuning.options.r=4")


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Lets the library wrap the chosen layers.

    What the added parameters mean differs by method, so that L2-SP draws them to their start. Those
    that start at a constant other than zero are factors, and are not decayed.

    Raises:
        ConfigError: A value or an option is wrong, or the method does not fit this model.
    """
    import torch

    from recsys.encoders.layers import select_layers
    from recsys.encoders.peft import injection
    from recsys.encoders.peft.methods import make_peft_config

    span = select_layers(encoder.model, cfg.layers)
    method = cfg.method.lower()  # PEFT itself writes some in capitals
    chosen_settings = make_peft_config(method, cfg.options, _list_targets(encoder, cfg, span))
    before = injection.compute_probe_states(encoder)
    added = injection.inject_method(encoder, chosen_settings, f"tuning.method={method}")
    return encoder.train_only(
        added,
        added,
        "pretrained",
        injection.make_merger(encoder),
        identical=torch.equal(injection.compute_probe_states(encoder), before),
        no_decay=injection.select_scales(encoder, added),
    )


def _list_targets(encoder: Encoder, cfg: Config, span: range) -> list[str]:
    """Full names of the modules to tune: PEFT matches by suffix, and a short one hits others."""
    from recsys.encoders.layers import find_layer_stack, list_attention_linears, list_linears
    from recsys.encoders.peft.methods import NORMS
    from recsys.encoders.projections import list_norms

    inside = list_attention_linears if cfg.targets == "attention" else list_linears
    if cfg.method.lower() in NORMS:
        if cfg.targets != "auto":
            raise ConfigError(
                f"tuning.targets is {cfg.targets}, and {cfg.method} tunes norms; set it to auto."
            )
        inside = list_norms
    path, stack = find_layer_stack(encoder.model)
    return [f"{path}.{i}.{name}" for i in span for name in inside(stack[i])]
