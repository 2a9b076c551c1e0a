"""Where packed texts stand, and a model called with them.

The texts of a micro-batch stand one behind the other, and no place is padding. The linear maps of a
model then see real tokens alone, each with the position that it has in its own text, and the
attention is told where each text begins (`recsys.encoders.packing.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys.types import upload

SPREAD = 4
"""Places of the padded form that states go back to, at most, for each token of a micro-batch."""

HALF = (torch.float16, torch.bfloat16)
"""What kernels for packed texts compute in."""


@dataclass(frozen=True)
class PackedLayout:
    """Where the texts of a micro-batch stand when they are packed.

    Attributes:
        count: N, number of texts.
        longest: L, tokens of the longest one.
        places: (T,) place of each token in the padded form (N * L), for the T tokens of all.
        positions: (1, T) position of each in its text, as the model counts it.
        starts: (N + 1,) int32, first token of each text, and T.
    """

    count: int
    longest: int
    places: Tensor
    positions: Tensor
    starts: Tensor

    @classmethod
    def build(
        cls, lengths: Sequence[int], width: int, first: int, device: torch.device
    ) -> PackedLayout:
        """The layout of right-padded texts; made on the host, where the lengths are known.

        Args:
            lengths: Tokens of each text, one at least.
            width: L of the padded form.
            first: Position that the model gives to the first token of a text.
            device: Where its tensors go.
        """
        sizes = torch.tensor(lengths)
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        text = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        place = torch.arange(int(starts[-1])) - starts[text]
        both = upload(torch.stack([text * width + place, place + first]), device)
        return cls(len(sizes), width, both[0], both[1:], upload(starts.int(), device))

    def pack(self, padded: Tensor) -> Tensor:
        """(1, T, ...) from the padded form (N, L, ...)."""
        return padded.flatten(0, 1)[self.places][None]

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, L, ...) from (1, T, ...); zero where there is no token."""
        shape = packed.shape[2:]
        flat = packed.new_zeros(self.count * self.longest, *shape)
        return flat.index_copy(0, self.places, packed[0]).view(self.count, self.longest, *shape)

    def describe(self) -> dict[str, Any]:
        """What the attention of each layer is given, under the names that transformers has."""
        return {
            "cu_seq_lens_q": self.starts,
            "cu_seq_lens_k": self.starts,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
            "packed_places": self.places,
        }


class Packing:
    """How an encoder's model is called with packed texts; see `packing.enabling`.

    Args:
        model: The model.
        everywhere: Whether texts are packed on any device and in any precision, or only where a
            kernel for them runs.
    """

    def __init__(self, model: nn.Module, everywhere: bool) -> None:
        self.everywhere = everywhere
        self.first = _find_first_position(model)

    def is_used(self, like: Tensor) -> bool:
        """Whether texts are packed where this parameter of the model is, as things are now."""
        return self.everywhere or (like.is_cuda and find_dtype(like) in HALF)

    def build_layout(
        self, lengths: Sequence[int], width: int, device: torch.device
    ) -> PackedLayout:
        """The layout of texts of so many tokens, right-padded to `width`."""
        return PackedLayout.build(lengths, width, self.first, device)


def run_packed(
    model: nn.Module, layout: PackedLayout, padded: dict[str, Tensor], flags: dict[str, Any]
) -> Tensor:
    """States (N, L, D) of packed texts, laid out with padding again; zero where there is no token.

    Args:
        model: A model that `packing.enabling` connected, or a twin that shares its layers.
        layout: Where the texts stand.
        padded: Its inputs by name, (N, L, ...) each, such as `input_ids`.
        flags: Further arguments of the model.
    """
    device = layout.places.device
    out = model(
        **{name: layout.pack(x) for name, x in padded.items()},
        position_ids=layout.positions,
        # A mask of four axes is taken as it is: none is made, and no device is asked anything.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        **layout.describe(),
        **flags,
    )
    states: Tensor = out.last_hidden_state
    return layout.unpack(states)


def _find_first_position(model: nn.Module) -> int:
    """Position of a text's first token: RoBERTa counts from the place after its padding."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def find_dtype(x: Tensor) -> torch.dtype:
    """In what a product with this tensor is computed, under autocast or not."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
