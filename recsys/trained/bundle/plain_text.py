"""Scores of a free text by an encoder and a few products of arrays, without the run's own model.

The encoder and its tokenizer are what takes time to load; nothing that training needs is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import BundleFiles

if TYPE_CHECKING:
    from recsys.encoders.pretrained.load import PretrainedEncoder

Floats = NDArray[np.float32]

TINY = 1e-12  # what a length is at least, as torch has it where it divides by one


class PlainText:
    """Scores texts by what a bundle has in `text.json` and beside it.

    Args:
        files: The bundle.
    """

    def __init__(self, files: BundleFiles) -> None:
        self._files = files
        self._about = json.loads(files.find(manifest.TEXT).read_text(encoding="utf-8"))
        self._arrays: dict[str, Floats] = {}

    @property
    def width(self) -> int:
        """D, of the item vectors that texts are compared with."""
        return int(self._about["width"])

    def score(self, texts: Sequence[str]) -> list[Floats]:
        """(I,) scores of all items for each text."""
        if not texts:
            return []
        catalog = self._load(manifest.CATALOG)[:, : self.width]
        scores = multiply(catalog, np.stack([self._finish(each) for each in self._encode(texts)]))
        added = f"{manifest.TEXT_ARRAYS}/{manifest.ADDED}.npy"
        return list(scores + self._load(added) if self._files.has(added) else scores)

    @property
    def has_encoder(self) -> bool:
        """Whether the encoder is loaded."""
        return "_encoder" in self.__dict__

    def _finish(self, vector: Floats) -> Floats:
        """(D,) a pooled vector -> (D,) what scores are products with."""
        for name in self._about["steps"]:
            part = f"{manifest.TEXT_ARRAYS}/{name}.npy"
            vector = normalize(vector) if name == manifest.UNIT else self._load(part) @ vector
        return vector * np.float32(self._about["scale"])

    def _encode(self, texts: Sequence[str]) -> Floats:
        """(N, D) the pooled vectors of texts, before the steps behind them."""
        import torch

        from recsys.types import Ragged

        loaded = self._encoder
        ids = loaded.tokenize([loaded.following.query_prompt + text for text in texts])
        tokens = Ragged.from_sequences([torch.tensor(each, dtype=torch.long) for each in ids])
        with torch.no_grad():
            out: Floats = loaded.encoder.eval()(tokens, query=True).float().numpy()
        return out

    @cached_property
    def _encoder(self) -> PretrainedEncoder:
        from recsys.encoders.pretrained.load import load_pretrained
        from recsys.fit.command import silence_libraries

        silence_libraries()
        folder = self._files.find_folder(manifest.ENCODER)
        return load_pretrained(str(folder.resolve()), **self._about["encoder"])

    def _load(self, name: str) -> Floats:
        """An array of the bundle, mapped from disk."""
        if name not in self._arrays:
            path = self._files.find(name)
            self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return self._arrays[name]


def multiply(vectors: Floats, queries: Floats) -> Floats:
    """(I, D), (Q, D) -> (Q, I) products; vectors are read from memory once for all queries."""
    # One query as a vector: as a row, it takes twice the time.
    out: Floats = (vectors @ queries[0])[None] if len(queries) == 1 else queries @ vectors.T
    return out


def normalize(vector: Floats) -> Floats:
    """(D,) a vector at length 1; one of zeros stays."""
    out: Floats = vector / max(float(np.linalg.norm(vector)), TINY)
    return out
