"""What training reads and computes: texts, tokens and floating point operations.

Everything is counted on the host, from sizes that the plans of the steps name; no step waits for a
device. An operation is a multiplication or an addition, and only matrix products count:

- A linear map with P weights takes 2 P a token forward; 2 P more for the gradient of its input,
  where that is asked for; 2 P more for the gradient of its weights, where they train. Embeddings
  take none.
- Attention takes 4 L H a token forward in texts of L tokens, where H is the width of all heads
  together (two products of H with L keys), and twice that backward, where a gradient passes it. A
  window or a causal mask saves nothing here. P learned keys in front of the others take 4 P H.
- DoRA makes the product B A of each map, by A and then B over a unit matrix, in every pass of a
  micro-batch and forward only: its norm is taken for a constant. Where its input has dropout, the
  pretrained map runs a second time on that input.
- A product of Q query vectors with N item vectors of width D takes 2 Q N D forward and twice that
  backward.

Which maps run, and through which of them a gradient passes, is read off one pass over a single
text: layers below kept states do not run, and frozen layers at the bottom have no backward pass.
The few products of a query with its own candidates are left out, dense maps of one vector a text
too, and a score that the objective
does not ask for counts as if it did. What activation checkpointing computes a second time is not
counted (Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM, SC 2021, count it apart).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import LINEAR, find_layer_stack, list_attentions
from recsys.encoders.peft.prefix_attention import PrefixAttention
from recsys.types import Ragged


class LayersAbove(Protocol):
    """Kept states, and the layers that run on them."""

    def compute_vectors(self, rows: Tensor) -> Tensor:
        """What the layers make of the texts of rows (N,)."""
        ...


@dataclass(frozen=True)
class FlopRate:
    """Operations of an encoder in training: `token` L + `square` L^2 for a text of L tokens.

    Attributes:
        token: Of the linear maps.
        square: Of the attention.
        call: Of what runs once for a micro-batch, whatever it holds.
        shapes: Input and output width of each linear map that runs a token, forward.
    """

    token: float
    square: float
    call: float
    shapes: tuple[tuple[int, int], ...]


@dataclass
class FlopCounter:
    """What training has read and computed on this rank.

    Attributes:
        counting: Whether what is encoded now belongs to training.
        texts: Texts encoded, each once a step.
        tokens: Their tokens, special tokens included and padding not.
        flops: Operations; see the module.
    """

    counting: bool = False
    texts: int = 0
    tokens: int = 0
    flops: float = 0.0
    _rates: dict[tuple[nn.Module, bool, bool], FlopRate] = field(default_factory=dict, repr=False)

    def count_texts(
        self, encoder: Encoder, prefix: LayersAbove | None, lengths: Sequence[int]
    ) -> None:
        """Counts texts that are encoded now.

        Args:
            encoder: By which encoder.
            prefix: Its kept states, or None where it begins at the tokens.
            lengths: Tokens of each text as the encoder sees it.
        """
        if not self.counting or not lengths:
            return
        tokens = sum(lengths)
        rate = self.get_rate(encoder, prefix)
        self.texts += len(lengths)
        self.tokens += tokens
        self.flops += rate.token * tokens + rate.square * sum(n * n for n in lengths)
        if rate.call:
            self.flops += rate.call * sum(1 for _ in encoder.plan_micro_batches(lengths))

    def get_rate(self, encoder: Encoder, prefix: LayersAbove | None) -> FlopRate:
        """What a text costs this encoder, with or without gradients as they are asked for now."""
        key = (encoder, prefix is not None, torch.is_grad_enabled())
        if key not in self._rates:
            counting, self.counting = self.counting, False  # a probe is no training
            self._rates[key] = probe(encoder, prefix)
            self.counting = counting
        return self._rates[key]

    def count_product(self, queries: Tensor, items: Tensor) -> None:
        """Counts a product of vectors (Q, D) with vectors (N, D) or wider."""
        if self.counting and queries.ndim == items.ndim == 2:
            passes = 1 + 2 * (torch.is_grad_enabled() and queries.requires_grad)
            self.flops += 2.0 * passes * len(queries) * len(items) * queries.shape[1]

    def count_linear(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Counts a pass through a linear map; a forward hook."""
        if self.counting:
            self.flops += _compute_linear_flops(module, args[0]) * (
                args[0].numel() // args[0].shape[-1]
            )


def _compute_linear_flops(module: nn.Module, x: Tensor) -> float:
    """Operations of a linear map for a row of its input (..., D), forward and backward."""
    weight = module.get_parameter("weight")
    backward = x.requires_grad + weight.requires_grad if torch.is_grad_enabled() else 0
    return 2.0 * _count_weights(module) * (1 + backward)


def _count_weights(module: nn.Module) -> int:
    """Numbers of a linear map's weight, also of one that is held as codes."""
    inputs, outputs = _get_shape(module)
    return inputs * outputs


def find_heads(root: nn.Module, encoders: tuple[str, ...]) -> list[nn.Module]:
    """The linear maps of a recommender that are no part of an encoder.

    Args:
        root: The recommender.
        encoders: How names begin in its encoders.
    """
    named = root.named_modules()
    return [m for name, m in named if isinstance(m, LINEAR) and not name.startswith(encoders)]


def compute_pair_lengths(
    encoder: Encoder, first: Iterable[int], second: Iterable[int]
) -> list[int]:
    """Tokens of joint passes over pairs of texts of so many raw tokens: `Encoder.encode_pairs`."""
    s = encoder.specials
    extra = len(s.prefix) + len(s.get_separators()) + len(s.suffix)
    return [min(a + b + extra, encoder.max_length) for a, b in zip(first, second, strict=True)]


def probe(encoder: Encoder, prefix: LayersAbove | None) -> FlopRate:
    """Reads off one pass over one text which maps run and where gradients pass.

    Dropout is off, so that nothing is drawn; nothing is left behind.

    Args:
        encoder: The tuned encoder.
        prefix: Its kept states, or None.
    """
    seen = _record_passes(encoder, prefix)
    layers = list(find_layer_stack(encoder.model)[1])
    inside = {m for layer in layers for m in layer.modules()}
    # A map outside of the layers may see one vector a text, not one a token.
    positions = next((rows for m, _, rows, _ in seen if m in inside), 0)
    of_tokens = [(m, flops) for m, flops, rows, _ in seen if rows == positions]
    # Forward only: no gradient passes what a layer computes of its weights alone.
    call = sum(
        2.0 * _count_weights(m) * rows
        for m, _, rows, _ in seen
        if m in inside and rows != positions
    )
    gradient = {m: wanted for m, _, _, wanted in seen}
    times = Counter(m for m, _, _, _ in seen)  # a layer may be used again
    attended = [
        _compute_attention_flops(layer, encoder.width, gradient) * min(ran, default=0)
        for layer in layers
        for ran in [[times[m] for m in layer.modules() if m in times]]
    ]
    learned = [
        sum(m.length for m in layer.modules() if isinstance(m, PrefixAttention)) for layer in layers
    ]
    bare = sum(_compute_parameter_flops(layer, gradient) for layer in layers)
    return FlopRate(
        token=sum(flops for _, flops in of_tokens)
        + bare
        + sum(_compute_repeated_flops(layer, gradient) for layer in layers)
        + sum(a * n for a, n in zip(attended, learned, strict=True)),
        square=sum(attended),
        call=call,
        shapes=tuple(_get_shape(m) for m, _ in of_tokens),
    )


def _record_passes(
    encoder: Encoder, prefix: LayersAbove | None
) -> list[tuple[nn.Module, float, int, bool]]:
    """Runs one text; the maps that ran, their operations, rows and whether a gradient passes."""
    seen: list[tuple[nn.Module, float, int, bool]] = []

    def record_pass(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = args[0]
        rows = x.numel() // x.shape[-1]
        seen.append((module, _compute_linear_flops(module, x), rows, x.requires_grad))

    # What makes a prefix runs once a pass, whatever the tokens.
    prefixed = [m for m in encoder.model.modules() if isinstance(m, PrefixAttention)]
    apart = {m for attention in prefixed for m in attention.prefix.modules()}
    maps = [m for m in encoder.model.modules() if isinstance(m, LINEAR) and m not in apart]
    handles = [m.register_forward_hook(record_pass) for m in maps]
    was = encoder.training
    encoder.eval()
    try:
        device = next(encoder.parameters()).device
        if prefix is None:
            encoder(Ragged(torch.zeros(4, dtype=torch.long, device=device), (4,)))
        else:
            prefix.compute_vectors(torch.zeros(1, dtype=torch.long, device=device))
    finally:
        encoder.train(was)
        for handle in handles:
            handle.remove()
    return seen


def _get_shape(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    inputs, outputs = module.get_parameter("weight").shape  # of transformers' Conv1D
    return inputs, outputs


def _compute_attention_flops(
    layer: nn.Module, width: int, gradient: dict[nn.Module, bool]
) -> float:
    """Operations of a layer's attention by L^2; zero where the layer does not run.

    Args:
        layer: One layer of the stack.
        width: D; stands for the width of all heads where no output map of an attention is found.
        gradient: Whether the input of each linear map that ran asks for a gradient.
    """
    own = [m for m in layer.modules() if m in gradient]
    if not own:
        return 0.0
    heads_width, backward = width, any(gradient[m] for m in own)
    owners = [layer.get_submodule(name) for name in list_attentions(layer)]
    maps = [m for c in owners for m in _find_pretrained(c) if m in gradient]
    if len(owners) == 1 and maps:
        # The last map of an attention reads what the heads gave.
        heads_width, backward = _get_shape(maps[-1])[0], gradient[maps[-1]]
    return 4.0 * heads_width * (3 if backward else 1)


def _compute_parameter_flops(layer: nn.Module, gradient: dict[nn.Module, bool]) -> float:
    """Operations a token of the maps that an attention holds as plain parameters (XLNet)."""
    ran = [m for m in layer.modules() if m in gradient]
    if not ran:
        return 0.0
    inner = [m for name in list_attentions(layer) for m in layer.get_submodule(name).modules()]
    maps = [p for m in inner if not isinstance(m, LINEAR) for p in m.parameters(recurse=False)]
    passes = any(gradient[m] for m in ran)
    return sum(2.0 * p.numel() * (1 + passes + p.requires_grad) for p in maps if p.ndim == 3)


def _compute_repeated_flops(layer: nn.Module, gradient: dict[nn.Module, bool]) -> float:
    """Operations a token of the pretrained maps that run again, on an input with dropout (DoRA)."""
    from peft.tuners.lora import LoraLayer

    out = 0.0
    for module in layer.modules():
        if not isinstance(module, LoraLayer) or module.get_base_layer() not in gradient:
            continue
        drops = [d for d in module.lora_dropout.values() if isinstance(d, nn.Dropout) and d.p > 0]
        if drops and len(module.lora_magnitude_vector):
            base = module.get_base_layer()
            out += 2.0 * _count_weights(base) * (1 + gradient[base])
    return out


def _find_pretrained(module: nn.Module) -> Iterator[nn.Module]:
    """Linear maps in order, without those that PEFT put beside or behind one of them."""
    if isinstance(module, LINEAR):
        yield module
        return
    children = dict(module.named_children())
    base = children.get("base_layer")
    for child in children.values() if base is None else [base]:
        yield from _find_pretrained(child)
