"""A model cut between two layers, without a rule for any family.

Two shallow twins of the model share all its modules but the stack of layers: one leaves the forward
pass where the first trained layer would begin, the other enters it there. Embeddings, masks,
rotary tables and the final norm stay the model's own affair.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import find_layer_stack
from recsys.errors import DataError, RecsysError
from recsys.types import Ragged


class ModelSplitError(RecsysError):
    """The model cannot be cut below its lowest trained layer; the reason is the message."""


class _StopForward(Exception):
    """Carries the states out of the middle of a forward pass."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


class _LayerStub(nn.Module):
    """Stands where a layer was; some families read a layer's kind of attention by position.

    Args:
        layer: The layer.
        size: Of what it gives: 0 the states alone, else a tuple of so many that begins with them.
    """

    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__()
        self.size = size
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def wrap_states(self, states: Tensor) -> object:
        """States in the form in which the layer gives them."""
        return (states, *[None] * (self.size - 1)) if self.size else states


class _ExitLayer(_LayerStub):
    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> Tensor:
        raise _StopForward(hidden_states)


class _FinalExitLayer(_LayerStub):
    """The last layer: nothing behind it could be left out."""

    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__(layer, size)
        self.layer = layer

    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> Tensor:
        out = self.layer(hidden_states, *rest, **named)
        raise _StopForward(out if isinstance(out, Tensor) else out[0])


class _SkippedLayer(_LayerStub):
    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> object:
        return self.wrap_states(hidden_states)


class _EntryLayer(_LayerStub):
    """The last skipped place: whatever came in is replaced by the kept states."""

    states: Tensor

    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> object:
        return self.wrap_states(self.states)


def _make_twin(model: nn.Module, path: str, stack: list[nn.Module]) -> nn.Module:
    """The model with another stack of layers at `path`; every other module is shared."""

    def copy_shallow(module: nn.Module) -> nn.Module:
        out = copy.copy(module)
        out._modules = dict(module._modules)
        return out

    root = copy_shallow(model)
    node = root
    *parents, last = path.split(".")
    for name in parents:
        child = node._modules[name]
        if child is None:
            raise DataError(f"{type(model).__name__} has no module {path}.")
        node._modules[name] = copy_shallow(child)
        node = node.get_submodule(name)
    node._modules[last] = nn.ModuleList(stack)
    return root


@torch.no_grad()
def _probe_layer(encoder: Encoder, layer: nn.Module) -> tuple[int, torch.dtype]:
    """How a layer passes states on: 0 as they are, else in a tuple of so many; and their type.

    Raises:
        ModelSplitError: They are no (N, L, D), or are not the first that it takes and gives.
    """
    seen: list[tuple[object, object]] = []

    def record_states(
        module: nn.Module, args: tuple[object, ...], named: dict[str, object], out: object
    ) -> None:
        seen.append((args[0] if args else named.get("hidden_states"), out))

    handle = layer.register_forward_hook(record_states, with_kwargs=True)
    was = encoder.training
    encoder.eval()
    try:
        device = next(encoder.parameters()).device
        ids = torch.zeros(4, dtype=torch.long, device=device)
        (length,) = encoder.compute_states(Ragged(ids, (4,))).sizes
    finally:
        encoder.train(was)
        handle.remove()
    taken, out = seen[0]
    first = out[0] if isinstance(out, tuple) else out
    for states in (taken, first):
        shape = tuple(states.shape) if isinstance(states, Tensor) else type(states).__name__
        if shape != (1, length, encoder.width):
            raise ModelSplitError(
                f"{type(encoder.model).__name__} cannot be cut between two layers (they pass on "
                f"{shape} for one text of {length} tokens)"
            )
    assert isinstance(first, Tensor), "seen just now"
    return len(out) if isinstance(out, tuple) else 0, first.dtype


class SplitModel:
    """A model cut below its lowest trained layer; made after tuning was applied.

    Args:
        encoder: The tuned encoder; at least one layer must lie below the lowest trained one.
            Where none trains, only what stands behind the layers, such as a norm, is above.

    Attributes:
        dtype: Of the states between two layers.

    Raises:
        ModelSplitError: The layers pass on something else than states (N, L, D).
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.depth = encoder, encoder.lowest_trained
        path, stack = find_layer_stack(encoder.model)
        whole = list(stack)
        if not 0 < self.depth <= len(whole):
            raise DataError(f"there is no prefix below layer {self.depth} of {len(whole)}.")
        size, self.dtype = _probe_layer(encoder, whole[0])
        self._entry = _EntryLayer(whole[self.depth - 1], size)
        skipped = [_SkippedLayer(layer, size) for layer in whole[: self.depth - 1]]
        if self.depth < len(whole):
            leave = _ExitLayer(whole[self.depth], size)
            left = [*whole[: self.depth], leave, *whole[self.depth + 1 :]]
        else:
            left = [*whole[:-1], _FinalExitLayer(whole[-1], size)]
        self._below = _make_twin(encoder.model, path, left)
        self._above = _make_twin(encoder.model, path, [*skipped, self._entry, *whole[self.depth :]])

    @torch.no_grad()
    def run_below(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States (N, L, D) that enter the lowest trained layer, for token ids (N, L)."""
        return self.run_inputs_below({"input_ids": ids, "attention_mask": mask.long()})

    @torch.no_grad()
    def run_inputs_below(self, inputs: Mapping[str, Any]) -> Tensor:
        """As `run_below`, of inputs by the names of the model's arguments."""
        was = self.encoder.training
        self.encoder.eval()
        flags = {"use_cache": False} if self.encoder.cache_flag else {}
        try:
            self._below(**inputs, **flags)
        except _StopForward as reached:
            return reached.states
        finally:
            self.encoder.train(was)
        raise DataError(f"{type(self.encoder.model).__name__} did not reach layer {self.depth}.")

    def run_above(
        self, states: Tensor, mask: Tensor, lengths: Sequence[int] | None = None
    ) -> Tensor:
        """Final states (N, L, D) from kept ones (N, L, D), packed on the way where texts are.

        Args:
            states: Kept ones.
            mask: (N, L) true for real tokens.
            lengths: How many each text has; None where the host does not know it.
        """
        layout = self.encoder.lay_out(lengths, states)
        self._entry.states = states if layout is None else layout.pack(states)
        come = self._make_embeddings(states)
        out = self.encoder.run_model(layout, mask.long(), {"inputs_embeds": come}, self._above)
        del self._entry.states
        return out

    def run_inputs_above(self, states: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """As `run_above`, with mask and the rest by the names of the model's arguments."""
        self._entry.states = states
        flags = {"use_cache": False} if self.encoder.cache_flag else {}
        come = self._make_embeddings(states)
        out: Tensor = self._above(inputs_embeds=come, **inputs, **flags).last_hidden_state
        del self._entry.states
        return out

    def _make_embeddings(self, states: Tensor) -> Tensor:
        """What comes in and is replaced; it must only have the width of an embedding (Electra)."""
        table = self.encoder.model.get_input_embeddings()  # type: ignore[operator]
        width = table.weight.shape[1]
        if states.shape[-1] == width:
            return states
        return states.new_zeros(*states.shape[:-1], width)
