"""Only the biases train: BitFit (Ben Zaken et al., ACL 2022)."""

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
    """Settings of BitFit."""

    moves: ClassVar[Moves] = "encoder"

    layers: int | str = option("all", '"all", or the last N layers')
    terms: Literal["all", "query_and_feedforward"] = option(
        "all", "every bias, or those of the queries and the feed-forward's first map"
    )


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Trains the biases of the chosen layers, and of a norm behind them.

    The subset is that of section 4 of the paper (b_q and b_m2).

    Raises:
        ConfigError: `layers` is no such number or word, or the model has no such biases.
    """
    from recsys.encoders.layers import compute_parameter_depths, select_layers

    span = select_layers(encoder.model, cfg.layers)
    depths = compute_parameter_depths(encoder.model)
    biases = {n for n, depth in depths.items() if depth >= span.start and n.endswith(".bias")}
    if cfg.terms == "query_and_feedforward":
        wanted = _list_subset_biases(encoder, span)
        if wanted <= biases:
            biases = wanted
        elif biases:
            raise ConfigError(
                f"tuning.terms=query_and_feedforward: {sorted(wanted - biases)[0]} is no parameter "
                f"of {type(encoder.model).__name__}; set tuning.terms=all."
            )
    if not biases:
        raise ConfigError(
            f"tuning=bitfit trains biases, and the layers of {type(encoder.model).__name__} have "
            "none; choose tuning=lora or tuning=top_layers, or a model with biases (BERT, RoBERTa)."
        )
    return encoder.train_only({f"model.{name}" for name in biases}, (), "pretrained")


def _list_subset_biases(encoder: Encoder, span: range) -> set[str]:
    """Biases of the queries and of the feed-forward's first map."""
    from recsys.encoders.layers import find_layer_stack
    from recsys.encoders.projections import find_feed_forward_input, find_projection

    path, stack = find_layer_stack(encoder.model)
    method = "tuning.terms=query_and_feedforward"
    return {
        f"{path}.{i}.{name}.bias"
        for i in span
        for name in (
            find_projection(stack[i], "query", method),
            find_feed_forward_input(stack[i], method),
        )
    }
