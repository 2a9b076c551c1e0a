"""What each item of a history adds to scores that are products of arrays, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.trained.bundle import manifest
from recsys.trained.bundle.plain_text import TINY

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Similar = tuple[tuple[Any, Any, Any], np.float32]
"""The three arrays of a sparse matrix, and what it counts."""


@dataclass(frozen=True)
class PlainParts:
    """Scores of a history as sums over its items.

    Attributes:
        kind: As `recommender.components.PlainForm`.
        numbers: As there.
        has: Whether the bundle has a file.
        load: Reads an array of the bundle.
        weigh: Items of a history, each once, and what each counts; given the history and whether
            an item counts as its latest event.
        list_similar: Matrices of similar items.
    """

    kind: str
    numbers: Mapping[str, float]
    has: Callable[[str], bool]
    load: Callable[[str], Any]
    weigh: Callable[[Ints, bool], tuple[Ints, Floats]]
    list_similar: Callable[[], Iterable[Similar]]

    def split(self, had: Ints, rows: Ints) -> tuple[Ints, Floats]:
        """Items (U,) of a history, each once, and what they add to scores of items (N,): (N, U)."""
        if self.kind == "vectors":
            return self._split_vectors(had, rows)
        own, counts = self.weigh(had, self.kind == "ease" or bool(self.numbers["binary"]))
        split = self._split_ease if self.kind == "ease" else self._split_similar
        return own, (counts[:, None] * split(own, rows)).T

    def _split_vectors(self, had: Ints, rows: Ints) -> tuple[Ints, Floats]:
        """A decayed mean, part by part; the lengths of vectors count as fixed."""
        numbers, items = self.numbers, self.load(manifest.CATALOG)
        width = int(numbers["width"])
        directions = items[:, :-1] if numbers["prior"] else items
        logits = -numbers["rate"] * np.arange(len(had))[::-1]
        own, back = np.unique(had, return_inverse=True)
        weights = np.zeros(len(own), dtype=np.float32)
        np.add.at(weights, back, np.exp(logits - logits.max()).astype(np.float32))
        parts = self._share_length((weights / weights.sum())[:, None] * directions[own, -width:])
        if self.has(f"{manifest.PLAIN_ARRAYS}/user_head.npy"):
            parts = self._share_length(parts + parts @ self._get("user_head").T)
        return own, (items[rows, :width] @ parts.T) * np.float32(numbers["scale"])

    def _share_length(self, parts: Floats) -> Floats:
        """Parts (U, D) over the length of their sum, for a cosine."""
        length = max(float(np.linalg.norm(parts.sum(0))), TINY) if self.numbers["unit"] else 1.0
        return parts / np.float32(length)

    def _split_ease(self, own: Ints, rows: Ints) -> Floats:
        """(U, N) weights of EASE from items (U,) to items (N,): `layers.ease.ClosedForm`."""
        seen = self.load(f"{manifest.STATE}/seen.npy")
        inverse = self.load(f"{manifest.STATE}/inverse.npy")
        known, penalty = self._get("known"), self._get("penalty")
        warm = known[own] > 0, known[rows] > 0
        slots = [np.searchsorted(seen, at[w]) for at, w in zip((own, rows), warm, strict=True)]
        parts = np.zeros((len(own), len(rows)), dtype=np.float32)
        parts[np.ix_(*warm)] = inverse[slots[0]][:, slots[1]]
        same = own[:, None] == rows
        # One that training has not seen has nothing in P but its own place on the diagonal.
        parts += same * np.where(warm[0], 0, self._get("diagonal")[own])[:, None]
        parts = same * known[own][:, None] - parts * penalty[rows]
        if self.has(f"{manifest.PLAIN_ARRAYS}/weights.npy"):
            text = self._get("projected")[own] @ self._get("weights")[:, rows]
            parts += np.float32(self.numbers["rho"]) * text
        out: Floats = parts
        return out

    def _split_similar(self, own: Ints, rows: Ints) -> Floats:
        """(U, N) similarities of items (U,) to items (N,)."""
        parts = np.zeros((len(own), len(rows)), dtype=np.float32)
        for (starts, columns, data), share in self.list_similar():
            for line, item in zip(parts, own.tolist(), strict=True):
                near = slice(int(starts[item]), int(starts[item + 1]))
                _, at, place = np.intersect1d(rows, columns[near], True, return_indices=True)
                line[at] += share * data[near][place]
        return parts

    def _get(self, name: str) -> Floats:
        out: Floats = self.load(f"{manifest.PLAIN_ARRAYS}/{name}.npy")
        return out
