"""States below the lowest trained layer, kept as they are first computed.

A sequence with a prefix and ends is no text of a catalog, and which there are is known only when
they are asked for. Lists of a validation come again in each, and pairs that were observed in each
epoch; what is frozen gives the same for them every time. The states lie in a file without a name in
the store's folder, which is gone with the process, and are read from it when they are needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.cache.common import Dtype, compute_relative_errors
from recsys.encoders.cache.states import DTYPES, cast_states
from recsys.encoders.cut import SplitModel
from recsys.encoders.encoder import Encoder
from recsys.runtime.store import get_default_root
from recsys.types import upload


@dataclass(frozen=True)
class KeepOptions:
    """What may be kept.

    Attributes:
        gb: Size of the file at most, in GB (10^9 bytes).
        dtype: Precision of the states.
    """

    gb: float
    dtype: Dtype


@dataclass(frozen=True)
class TreeInputs:
    """Sequences of a micro-batch, as a model takes them.

    Attributes:
        keys: What names each.
        lengths: Tokens of each.
        ids: (N, L) token ids.
        positions: (N, L) their positions, or None where they count from 0.
        mask: As the model takes it.
        ends: (2, P) row and column of the tokens whose final states are asked for.
    """

    keys: Sequence[bytes]
    lengths: Sequence[int]
    ids: Tensor
    positions: Tensor | None
    mask: Any
    ends: Tensor


class KeptTreeStates:
    """A model cut below its lowest trained layer, with the states that entered there.

    Where none of the layers trains, the states of the tokens that are asked for are enough.

    Args:
        encoder: The tuned encoder, of which at least one layer is frozen from below.
        options: How much is kept.

    Raises:
        ModelSplitError: The model cannot be cut.
    """

    def __init__(self, encoder: Encoder, options: KeepOptions) -> None:
        self.encoder, self._options = encoder, options
        self._split = SplitModel(encoder)
        self._ends_only = self._split.depth == encoder.depth
        self._places: dict[bytes, tuple[int, int]] = {}
        self._file: IO[bytes] | None = None
        self._used = 0

    @property
    def depth(self) -> int:
        """The lowest trained layer."""
        return self._split.depth

    def has(self, key: bytes) -> bool:
        """Whether the states of a sequence are kept."""
        return key in self._places

    def run(self, inputs: TreeInputs, keep: bool) -> Tensor:
        """(P, D) final states of the tokens that are asked for.

        Args:
            inputs: The sequences, of which all are kept or none.
            keep: Whether what is computed is kept, as far as there is room.
        """
        kept = all(self.has(key) for key in inputs.keys)
        states = self._load(inputs) if kept else self._compute(inputs, keep)
        if self._ends_only:
            return self._split.run_above(states[:, None], self._see_itself(states))[:, 0]
        out = self._split.run_inputs_above(states, _name_inputs(inputs))
        return out[inputs.ends[0], inputs.ends[1]]

    def compute_vectors(self, rows: Tensor) -> Tensor:
        """What the layers above make of rows (N,) of four tokens, to count what they cost."""
        like = next(self.encoder.parameters())
        states = like.new_zeros(len(rows), 4, self.encoder.width)
        return self._split.run_above(states, torch.ones(len(rows), 4, device=like.device).bool())

    @torch.no_grad()
    def agrees(self, inputs: TreeInputs, run_whole: Callable[[], Tensor]) -> bool:
        """Whether the cut model gives the final states (P, D) that the whole one does."""
        want, got = run_whole(), self.run(inputs, False)
        return bool(compute_relative_errors(got, want).max() <= 1e-3)

    @staticmethod
    def _see_itself(states: Tensor) -> Tensor:
        return torch.ones(len(states), 1, dtype=torch.bool, device=states.device)

    def _compute(self, inputs: TreeInputs, keep: bool) -> Tensor:
        """States that enter the lowest trained layer: (N, L, D), or (P, D) of the ends alone."""
        states = self._split.run_inputs_below({"input_ids": inputs.ids, **_name_inputs(inputs)})
        if self._ends_only:
            states = states[inputs.ends[0], inputs.ends[1]]
        stored = cast_states(states.cpu(), self._options.dtype)
        if keep:
            owner = inputs.ends[0].cpu()
            for row, (key, length) in enumerate(zip(inputs.keys, inputs.lengths, strict=True)):
                own = stored[owner == row] if self._ends_only else stored[row, :length]
                self._write(key, own.numpy())
        # What is kept is what the first pass goes on with, so that the second one repeats it.
        return upload(stored.to(states.dtype), states.device)

    def _write(self, key: bytes, rows: np.ndarray[Any, Any]) -> None:
        """Keeps rows (T, D) of a sequence, if there is room."""
        if key in self._places or self._used + rows.nbytes > self._options.gb * 1e9:
            return
        if self._file is None:
            root = get_default_root()
            root.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=root)  # noqa: SIM115 - open with the process
        try:
            written = os.pwrite(self._file.fileno(), rows.tobytes(), self._used)
        except OSError:  # the disk is full: the others are computed each time
            written = 0
        if written < rows.nbytes:
            self._options = KeepOptions(0.0, self._options.dtype)
            return
        self._places[key] = self._used, len(rows)
        self._used += rows.nbytes

    def _load(self, inputs: TreeInputs) -> Tensor:
        """As `_compute`, of what is kept."""
        assert self._file is not None
        kind, width = DTYPES[self._options.dtype][0], self.encoder.width
        parts = []
        for key in inputs.keys:
            at, count = self._places[key]
            size = count * width * np.dtype(kind).itemsize
            raw = bytearray(os.pread(self._file.fileno(), size, at))
            parts.append(torch.from_numpy(np.frombuffer(raw, dtype=kind).reshape(count, width)))
        if not self._ends_only:
            states = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        else:
            states = torch.cat(parts)
        like = next(self.encoder.parameters())
        return upload(states, like.device).to(like.dtype)


def _name_inputs(inputs: TreeInputs) -> dict[str, Any]:
    """Mask and positions by the names of a model's arguments."""
    places = {} if inputs.positions is None else {"position_ids": inputs.positions}
    return {"attention_mask": inputs.mask, **places}
