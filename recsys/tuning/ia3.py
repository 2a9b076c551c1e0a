"""Learned scales of keys, values and the feed-forward: IA3 (Liu et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recsys.config.schema import Moves, TuningConfig, option

if TYPE_CHECKING:
    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned


@dataclass
class Config(TuningConfig):
    """Settings of IA3."""

    moves: ClassVar[Moves] = "tuned"

    layers: int | str = option("all", '"all", or the last N layers')


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Scales what the chosen layers attend to and their inner activation; by one at first.

    A scale that decayed to zero would switch its unit off, and one that L2-SP drew there too: the
    scales are not decayed, and their anchor is their start.

    Raises:
        ConfigError: `layers` is no such number or word, or one map makes queries, keys and values.
    """
    from peft import IA3Config

    from recsys.encoders.layers import find_feed_forward_output, find_layer_stack, select_layers
    from recsys.encoders.peft.injection import inject_method, make_merger
    from recsys.encoders.projections import find_projection

    span = select_layers(encoder.model, cfg.layers)
    path, stack = find_layer_stack(encoder.model)
    attention: list[str] = []
    inner: list[str] = []
    for i in span:
        pair = [find_projection(stack[i], kind, "tuning=ia3") for kind in ("key", "value")]
        attention += [f"{path}.{i}.{name}" for name in pair]
        # The last map of the feed-forward reads its inner activation.
        inner.append(f"{path}.{i}.{find_feed_forward_output(stack[i])}")
    settings = IA3Config(target_modules=[*attention, *inner], feedforward_modules=inner)
    added = inject_method(encoder, settings, "tuning=ia3")
    return encoder.train_only(added, added, "pretrained", make_merger(encoder), no_decay=added)
