"""Vectors of users' texts by a frozen encoder: made once a text, and kept by what the text is."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.encoders.encoder import Encoder
from recsys.types import Ragged

_FIRST = 1024  # rows at first; doubled where they do not suffice


class TextVectorCache:
    """Vectors of texts that come again: in every epoch, every validation and the test.

    Each is made of its text alone, so that its bits do not depend on what came with it: a run that
    was stopped and goes on makes the same. Where a text alone leaves the device idle, on a GPU,
    texts are encoded as they come and nothing is kept.

    Args:
        encoder: An encoder of which nothing trains.
        keep_gb: Largest size of what is kept (10^9 bytes); what comes later is made every time.
    """

    def __init__(self, encoder: Encoder, keep_gb: float) -> None:
        self._encoder = encoder
        self._most = int(keep_gb * 1e9 / (4 * encoder.vector_width))
        self._rows: dict[bytes, int] = {}
        self._values = torch.empty(0, encoder.vector_width)

    def __len__(self) -> int:
        return len(self._rows)

    def encode(self, tokens: Ragged) -> tuple[Tensor, tuple[int, ...]]:
        """Vectors of texts, and which were encoded now.

        Args:
            tokens: Raw token ids (sum of L,) of users' texts, on the host.

        Returns:
            (Q, V) fp32 on the device of the encoder, and raw tokens of each text that was encoded.
        """
        device = next(self._encoder.parameters()).device
        if device.type != "cpu":
            return self._encoder(tokens.to(device), query=True).float(), tokens.sizes
        values, late = tokens.values.numpy(), list[Tensor]()
        places: list[int] = []
        made: list[int] = []
        for start, size in zip(tokens.offsets, tokens.sizes, strict=False):
            key = values[start : start + size].tobytes()
            row = self._rows.get(key, -1)
            if row < 0:
                made.append(int(size))
                vector = self._encode_alone(tokens.values[start : start + size])
                row = self._add_row(key, vector)
                if row < 0:
                    row = -1 - len(late)
                    late.append(vector)
            places.append(row)
        if not late:
            return self._values[torch.tensor(places, dtype=torch.long)], tuple(made)
        parts = [self._values[r] if r >= 0 else late[-1 - r] for r in places]
        return torch.stack(parts), tuple(made)

    def _encode_alone(self, ids: Tensor) -> Tensor:
        """(V,) the vector of one text; it may enter a later backward pass, whoever asks first."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(ids.device.type, enabled=False),
        ):
            vector: Tensor = self._encoder(Ragged(ids.clone(), (len(ids),)), query=True)[0].float()
            return vector

    def _add_row(self, key: bytes, vector: Tensor) -> int:
        """The row of a vector that is kept from now on, or -1 where there is no room."""
        row = len(self._rows)
        if row >= self._most:
            return -1
        with torch.inference_mode(False), torch.no_grad():
            if row >= len(self._values):
                room = min(max(_FIRST, 2 * len(self._values)), self._most)
                more = torch.empty(room, self._values.shape[1])
                more[:row] = self._values[:row]
                self._values = more
            self._values[row] = vector
        self._rows[key] = row
        return row
