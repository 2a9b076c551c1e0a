"""Token states of catalog items, kept in memory as long as the encoder stays what it is."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.batches.catalog import Catalog
from recsys.encoders.cache.common import BLOCK
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.encoder import Encoder
from recsys.encoders.padding import compute_places
from recsys.types import Ragged, upload


def drop_special_tokens(states: Ragged, raw: tuple[int, ...], encoder: Encoder) -> Ragged:
    """States without those of special tokens; a text without a token of its own keeps them.

    Args:
        states: (sum of L, D) as the encoder gives them.
        raw: Raw tokens of each text.
        encoder: The encoder that gave them.
    """
    before, after = len(encoder.specials.prefix), len(encoder.specials.suffix)
    own = torch.tensor(raw, dtype=torch.long) > 0
    sizes = torch.tensor(states.sizes, dtype=torch.long)
    starts = sizes.cumsum(0) - sizes + before * own
    sizes = sizes - (before + after) * own
    place = upload(compute_places(starts, sizes), states.values.device)
    return Ragged(states.values[place], tuple(sizes.tolist()))


class TokenStateCache:
    """Makes token states of catalog items, and keeps them while nothing that makes them moves.

    They are kept where no gradient passes them: in evaluation, and in training too where the
    encoder does not train. An item is encoded when it is first asked for. All are forgotten when
    states are made with a gradient, and when a trained parameter is written otherwise.

    Args:
        encoder: The tuned encoder.
        catalog: The item texts.
        prefix: States kept below the lowest trained layer, or None.
        specials: Whether the states of special tokens are among them.
        keep_gb: Largest size of what may be kept of the whole catalog (10^9 bytes).
        known: (sum of L, D) states of the whole catalog, of an encoder that will not change; None:
            they are computed.
    """

    def __init__(
        self,
        encoder: Encoder,
        catalog: Catalog,
        prefix: FrozenLayerCache | None,
        specials: bool,
        keep_gb: float,
        known: Tensor | None = None,
    ) -> None:
        self._encoder, self._catalog, self._prefix = encoder, catalog, prefix
        raw = torch.tensor(catalog.count_tokens(torch.arange(len(catalog))), dtype=torch.long)
        sizes = torch.tensor(encoder.compute_lengths(raw.tolist()), dtype=torch.long)
        extra = len(encoder.specials.prefix) + len(encoder.specials.suffix)
        self._specials = specials
        self._sizes = sizes if specials else torch.where(raw > 0, sizes - extra, sizes)
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._trained = [p for p in encoder.parameters() if p.requires_grad]
        self.size_gb = int(self._sizes.sum()) * encoder.width * 4 / 1e9
        self.fits = self.size_gb <= keep_gb
        self._key: tuple[object, ...] | None = None
        self._values = torch.empty(0)
        self._done = torch.zeros(0, dtype=torch.bool)
        self._known = known if self.fits else None
        if known is not None and len(known) != int(self._sizes.sum()):
            raise ValueError(f"{len(known)} token states for {int(self._sizes.sum())} tokens")

    @property
    def keeps(self) -> bool:
        """Whether states that are asked for now may be those of an earlier call."""
        if not self.fits:
            return False
        return not self._trained or not (torch.is_grad_enabled() or self._encoder.training)

    def encode_rows(self, rows: Tensor, tokens: Ragged | None = None) -> Ragged:
        """Token states (sum of L, D), fp32, of catalog rows (U,) that lie on the host.

        Args:
            rows: The items.
            tokens: Raw token ids of each, where something is left out of its text: such states
                are not kept. None: the whole texts.
        """
        if not self.keeps:
            # A step may follow, and a fused one does not show in a parameter's version.
            self._key = None
        if tokens is not None:
            return self.encode_text(tokens)
        if not self.keeps:
            return self._compute_rows(rows)
        # A kept tensor may enter a later backward pass, also where it is made in a validation.
        with torch.inference_mode(False), torch.no_grad():
            self._refresh()
            missing = torch.unique(rows[~self._done[rows]])
            for part in torch.split(missing, BLOCK) if len(missing) else ():
                made = self._compute_rows(part)
                place = compute_places(self._starts[part], self._sizes[part])
                self._values[upload(place, self._values.device)] = made.values
                self._done[part] = True
        sizes = self._sizes[rows]
        place = upload(compute_places(self._starts[rows], sizes), self._values.device)
        return Ragged(self._values[place], tuple(sizes.tolist()))

    def encode_text(self, tokens: Ragged) -> Ragged:
        """Token states (sum of L, D), fp32, of texts given as raw token ids."""
        states = self._encoder.compute_states(tokens)
        states = Ragged(states.values.float(), states.sizes)
        return (
            states if self._specials else drop_special_tokens(states, tokens.sizes, self._encoder)
        )

    def _compute_rows(self, rows: Tensor) -> Ragged:
        """Encodes catalog rows (U,)."""
        device = next(self._encoder.parameters()).device
        if self._prefix is None:
            return self.encode_text(self._catalog.gather_tokens(rows, device))
        states = self._prefix.compute_states(rows)
        states = Ragged(states.values.float(), states.sizes)
        return (
            states
            if self._specials
            else drop_special_tokens(states, self._catalog.count_tokens(rows), self._encoder)
        )

    def _refresh(self) -> None:
        """Forgets everything where a trained parameter has moved, or the model has."""
        device = next(self._encoder.parameters()).device
        # An operation in place, as that which restores a checkpoint, counts a version up; a
        # replaced tensor lies elsewhere. Training forgets by itself: see `encode_rows`.
        moved = tuple((p._version, p.data_ptr()) for p in self._trained)
        key = (device, torch.is_autocast_enabled(device.type), moved)
        if key == self._key:
            return
        self._key = key
        if self._known is not None:
            self._values = self._known.to(device)
            self._done = torch.ones(len(self._sizes), dtype=torch.bool)
            return
        if self._values.device != device or not len(self._done):
            shape = int(self._sizes.sum()), self._encoder.width
            self._values = torch.empty(shape, device=device)
        self._done = torch.zeros(len(self._sizes), dtype=torch.bool)
