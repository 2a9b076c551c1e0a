"""Prefix tuning: learned keys and values before the first token (Li and Liang, ACL 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from recsys.config.schema import WIDEST, Moves, TuningConfig, option
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from recsys.encoders.encoder import Encoder
    from recsys.types import Tuned

_SMALL = 0.02  # standard deviation, that of BERT's own start


@dataclass
class Config(TuningConfig):
    """Settings of prefix tuning."""

    moves: ClassVar[Moves] = "tuned"

    layers: int | str = option("all", '"all", or the last N layers')
    length: int = option(10, "learned keys and values of a layer", least=1, most=WIDEST)
    projection: int | None = option(
        None,
        "hidden width of an MLP that makes them, one a layer; null: they are",
        least=1,
        most=WIDEST,
    )
    start: Literal["small", "random", "tokens"] = option(
        "small",
        "near zero, normal random numbers, or what the pretrained layers make of "
        "random tokens (not with a projection)",
    )


def apply(encoder: Encoder, cfg: Config) -> Tuned:
    """Puts learned keys and values before those of the tokens, in the chosen layers.

    Attention is shared with them from the first step on, whatever they are: the output does not
    start as the pretrained model's, and zero is no neutral value. Hence their anchor is their
    start, and they are not decayed. Small numbers disturb it least; equal ones would stay equal,
    so that they are drawn.

    The MLP is the reparametrisation of section 4.3, with a hidden layer for each layer where the
    paper shares one; activations of real tokens as a start are those of section 7.4.

    Raises:
        ConfigError: A value is out of its range, or the model's attention takes no keys and values
            from outside.
    """
    from recsys.encoders.layers import find_layer_stack, select_layers
    from recsys.encoders.peft.prefix_attention import (
        PrefixAttention,
        find_attention,
        record_keys_values,
    )

    span = select_layers(encoder.model, cfg.layers)
    _check_config(encoder, cfg)
    path, stack = find_layer_stack(encoder.model)
    names = [find_attention(stack[i], encoder.model) for i in span]
    text = cfg.length if cfg.start == "tokens" else 1
    pairs = record_keys_values(encoder.model, span, _sample_tokens(encoder, text))
    for i, name, (keys, values) in zip(span, names, pairs, strict=True):
        prefix = _make_prefix_encoder(cfg, keys, values, len(encoder.specials.prefix))
        wrapped = PrefixAttention(
            stack[i].get_submodule(name), prefix, cfg.length, heads=keys.shape[1]
        )
        stack[i].set_submodule(name, wrapped)
    inside = tuple(f"model.{path}.{i}.{name}.prefix." for i, name in zip(span, names, strict=True))
    added = {name for name, _ in encoder.named_parameters() if name.startswith(inside)}
    learned = {name for name in added if name.endswith(".embedding.weight")}
    plain = learned if cfg.projection is None else set()
    return encoder.train_only(added, added, "pretrained", identical=False, no_decay=plain)


def _check_config(encoder: Encoder, cfg: Config) -> None:
    if cfg.start != "tokens":
        return
    if cfg.projection is not None:
        raise ConfigError(
            "tuning.start=tokens sets keys and values, and tuning.projection makes them of "
            "something else; set tuning.start to small or random."
        )
    room = encoder.max_length - len(encoder.specials.prefix) - len(encoder.specials.suffix)
    if cfg.length > room:
        raise ConfigError(
            f"tuning.length is {cfg.length}, and encoder.max_length={encoder.max_length} leaves "
            f"room for a text of {room} tokens to start from; lower the first, raise the second, "
            "or set tuning.start=small."
        )


def _sample_tokens(encoder: Encoder, length: int) -> Tensor:
    """(1, L) a text of so many random tokens with its special tokens, or of one token."""
    import torch

    special = encoder.specials
    table = encoder.model.get_input_embeddings()  # type: ignore[operator]
    taken = {special.pad, *special.prefix, *(special.separators or ()), *special.suffix}
    free = torch.tensor([i for i in range(table.num_embeddings) if i not in taken])
    drawn = free[torch.randint(len(free), (length,))]
    ids = torch.tensor([*special.prefix, *drawn.tolist(), *special.suffix])
    return ids[None].to(table.weight.device)


def _make_prefix_encoder(cfg: Config, keys: Tensor, values: Tensor, skipped: int) -> nn.Module:
    """What holds or makes the keys and values of one layer, as PEFT has it.

    Args:
        cfg: The settings.
        keys: (1, heads, L, width of a head) keys of a text.
        values: Its values, likewise.
        skipped: How many special tokens stand before the text.
    """
    import torch
    from peft import PrefixEncoder, PrefixTuningConfig
    from torch import nn

    heads, width = keys.shape[1], keys.shape[1] * keys.shape[3]
    settings = PrefixTuningConfig(
        num_virtual_tokens=cfg.length,
        token_dim=width,
        num_layers=1,
        num_attention_heads=heads,
        encoder_hidden_size=cfg.projection,
        prefix_projection=cfg.projection is not None,
        # With a projection: its last map is zero, behind places that differ.
        init_weights="zero" if cfg.start == "small" else None,
    )
    made: nn.Module = PrefixEncoder(settings)
    if cfg.start == "small" and cfg.projection is None:
        nn.init.normal_(made.get_parameter("embedding.weight"), std=_SMALL)
    if cfg.start == "tokens":
        own = slice(skipped, skipped + cfg.length)
        flat = [x[0, :, own].transpose(0, 1).reshape(cfg.length, width) for x in (keys, values)]
        with torch.no_grad():
            made.get_parameter("embedding.weight").copy_(torch.cat(flat, dim=1))
    return made.to(keys.device)
