"""The frozen prefix: token states below the lowest trained layer, computed once and kept.

Two shallow twins of the model share all its modules but the stack of layers: one leaves the forward
pass where the first trained layer would begin, the other enters it there. Embeddings, masks,
rotary tables and the final norm stay the model's own affair, so that no family needs a rule.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recsys.data.catalog import Catalog
from recsys.data.store import Store
from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import layer_of, layer_stack
from recsys.errors import DataError

_FORMAT = 1  # raise it when the files change, so that old folders are not read
_SAMPLE = 16  # texts that are computed again at each start


class _Reached(Exception):
    """Carries the states out of the middle of a forward pass."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


class _Place(nn.Module):
    """Stands where a layer was; some families read a layer's kind of attention by position."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type


class _Leave(_Place):
    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> Tensor:
        raise _Reached(hidden_states)


class _Pass(_Place):
    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> Tensor:
        return hidden_states


class _Enter(_Place):
    """The last skipped place: whatever came in is replaced by the kept states."""

    states: Tensor

    def forward(self, hidden_states: Tensor, *rest: object, **named: object) -> Tensor:
        return self.states


def _twin(model: nn.Module, path: str, stack: list[nn.Module]) -> nn.Module:
    """The model with another stack of layers at `path`; every other module is shared."""

    def shallow(module: nn.Module) -> nn.Module:
        out = copy.copy(module)
        out._modules = dict(module._modules)
        return out

    root = shallow(model)
    node = root
    *parents, last = path.split(".")
    for name in parents:
        child = node._modules[name]
        if child is None:
            raise DataError(f"{type(model).__name__} has no module {path}.")
        node._modules[name] = shallow(child)
        node = node.get_submodule(name)
    node._modules[last] = nn.ModuleList(stack)
    return root


class Prefix:
    """A model cut below its lowest trained layer; made after tuning was applied.

    Args:
        encoder: The tuned encoder; at least one layer must lie below the lowest trained one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.depth = encoder, encoder.lowest_trained
        path, stack = layer_stack(encoder.model)
        whole = list(stack)
        if not 0 < self.depth < len(whole):
            raise DataError(f"there is no prefix below layer {self.depth} of {len(whole)}.")
        self._entry = _Enter(whole[self.depth - 1])
        skipped = [_Pass(layer) for layer in whole[: self.depth - 1]]
        left = [*whole[: self.depth], _Leave(whole[self.depth]), *whole[self.depth + 1 :]]
        self._below = _twin(encoder.model, path, left)
        self._above = _twin(encoder.model, path, [*skipped, self._entry, *whole[self.depth :]])

    @torch.no_grad()
    def below(self, ids: Tensor, mask: Tensor) -> Tensor:
        """States (N, L, D) that enter the lowest trained layer, for token ids (N, L)."""
        was = self.encoder.training
        self.encoder.eval()
        try:
            self._call(self._below, input_ids=ids, attention_mask=mask.long())
        except _Reached as reached:
            return reached.states
        finally:
            self.encoder.train(was)
        raise DataError(f"{type(self.encoder.model).__name__} did not reach layer {self.depth}.")

    def above(self, states: Tensor, mask: Tensor) -> Tensor:
        """Final states (N, L, D) from kept ones (N, L, D) and the mask of real tokens (N, L)."""
        self._entry.states = states
        out = self._call(self._above, inputs_embeds=states, attention_mask=mask.long())
        del self._entry.states
        return out

    def _call(self, twin: nn.Module, **inputs: Tensor) -> Tensor:
        flag = {"use_cache": False} if self.encoder.cache_flag else {}
        states: Tensor = twin(**inputs, **flag).last_hidden_state
        return states


class PrefixCache:
    """Kept states of a whole catalog, and vectors made from them.

    The states are fp32, ragged and memory-mapped: rows of the file are tokens.

    Args:
        prefix: The cut model.
        folder: What `build` made.
    """

    def __init__(self, prefix: Prefix, folder: Path) -> None:
        self.prefix, self.folder = prefix, folder
        self._states: npt.NDArray[np.float32] = np.load(folder / "states.npy", mmap_mode="r")
        self._offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy")

    @staticmethod
    def size_gb(encoder: Encoder, catalog: Catalog) -> float:
        """Size of the states of a whole catalog, in GB (10^9 bytes)."""
        lengths = encoder.lengths(catalog.sizes(torch.arange(len(catalog))))
        return sum(lengths) * encoder.width * 4 / 1e9

    @classmethod
    def build(cls, encoder: Encoder, catalog: Catalog, store: Store) -> PrefixCache:
        """Computes the states, or finds those of an earlier run with the same prefix and texts.

        Raises:
            DataError: Kept states differ from what the model computes now.
        """
        prefix = Prefix(encoder)
        parts = {
            "format": _FORMAT,
            "weights": _weights_hash(encoder),
            "catalog": catalog.folder.name,
            "specials": [*encoder.specials.prefix, -1, *encoder.specials.suffix],
            "max_length": encoder.max_length,
            "depth": prefix.depth,
        }
        sizes = catalog.sizes(torch.arange(len(catalog)))
        lengths = np.asarray(encoder.lengths(sizes), dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        def write(folder: Path) -> None:
            shape = (int(offsets[-1]), encoder.width)
            out = np.lib.format.open_memmap(
                folder / "states.npy", mode="w+", dtype=np.float32, shape=shape
            )
            for row, states in _compute(prefix, catalog, torch.arange(len(catalog))):
                out[offsets[row] : offsets[row + 1]] = states.cpu().numpy()
            out.flush()
            np.save(folder / "offsets.npy", offsets)

        cache = cls(prefix, store.folder("prefix", parts, write))
        cache._verify(catalog)
        return cache

    def of(self, encoder: Encoder) -> PrefixCache:
        """The same states below another encoder that shares the frozen layers."""
        return PrefixCache(Prefix(encoder), self.folder)

    def _verify(self, catalog: Catalog) -> None:
        """Computes a sample again; a wrong file must not decide an experiment."""
        count = min(_SAMPLE, len(catalog))
        rows = torch.from_numpy(np.random.default_rng().choice(len(catalog), count, replace=False))
        for row, states in _compute(self.prefix, catalog, rows):
            kept = torch.from_numpy(
                self._states[self._offsets[row] : self._offsets[row + 1]].copy()
            )
            if not torch.allclose(states.cpu(), kept, rtol=1e-3, atol=1e-3):
                raise DataError(
                    f"kept states of item row {row} differ from the model's; "
                    "remove the folder 'prefix' of the cache."
                )

    def vectors(self, rows: Tensor) -> Tensor:
        """(U, D) pooled texts of catalog rows (U,), from the kept states on."""
        encoder = self.prefix.encoder
        place: npt.NDArray[np.int64] = rows.cpu().numpy()
        lengths = (self._offsets[place + 1] - self._offsets[place]).tolist()
        out: list[Tensor] = []
        order: list[int] = []
        for part in encoder.plan(lengths):
            length = torch.tensor([lengths[i] for i in part])[:, None]
            steps = torch.arange(int(length.max()))[None, :]
            mask = steps < length
            start = torch.from_numpy(self._offsets[place[list(part)]])[:, None]
            # Padding repeats the last token: defined numbers that the mask leaves out.
            index = start + torch.minimum(steps, length - 1)
            states = torch.from_numpy(self._states[index.numpy()]).to(rows.device)
            mask = mask.to(rows.device)
            out.append(encoder.pooling(self.prefix.above(states, mask), mask))
            order.extend(part)
        vectors = torch.cat(out)
        return vectors[torch.tensor(order).argsort().to(vectors.device)]


def _compute(prefix: Prefix, catalog: Catalog, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    """States (L, D) of each row's text, in no particular order, a block of texts at a time."""
    device = next(prefix.encoder.parameters()).device
    for block in torch.split(rows, 1024):
        tokens = catalog.tokens(block)
        moved = type(tokens)(tokens.values.to(device), tokens.sizes)
        for chunk in prefix.encoder.chunks(moved):
            states = prefix.below(chunk.ids, chunk.mask)
            for i, (row, length) in enumerate(zip(chunk.rows, chunk.lengths, strict=True)):
                yield int(block[row]), states[i, :length]


def _weights_hash(encoder: Encoder) -> str:
    """SHA-256 of what lies below the lowest trained layer, and of the model's settings.

    Nothing above enters it, so that all methods that leave the same layers alone share the states.
    """
    depths = layer_of(encoder.model)
    digest = hashlib.sha256(encoder.model.config.to_json_string().encode())  # type: ignore[operator, union-attr]
    for name, parameter in sorted(encoder.model.named_parameters()):
        if depths[name] < encoder.lowest_trained:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
