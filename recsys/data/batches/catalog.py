"""Item texts tokenised once: flat raw token ids and offsets, mapped from disk by every process."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.runtime.progress import print_status
from recsys.runtime.store import Store
from recsys.types import Ragged, upload

Tokenize = Callable[[list[str]], list[list[int]]]

_FORMAT = 1  # raise it when the files change, so that old folders are not read
CHUNK = 8192  # texts a call: enough to keep a tokenizer's threads busy, little memory
_MAX_ID = int(np.iinfo(np.int32).max)


def hash_texts(texts: Sequence[str]) -> str:
    """SHA-256 of texts in order; each goes in with its length, so that borders count."""
    digest = hashlib.sha256()
    for text in texts:
        # texts from files can hold lone surrogates, which strict UTF-8 refuses
        data = text.encode("utf-8", errors="surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


class Catalog:
    """The raw tokens of all items, without special tokens, by catalog row.

    The arrays are memory maps: workers and ranks share their pages. Pickling sends the folder's
    name only, so that a spawned worker maps the files instead of receiving them. A device that
    texts are asked on gets a copy of all tokens, once: four bytes a token. A step then sends it
    two numbers a text.

    Args:
        folder: A folder that `from_texts` made.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids: npt.NDArray[np.int32] = np.load(folder / "ids.npy", mmap_mode="r")
        self._offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy", mmap_mode="r")
        self._resident: dict[torch.device, Tensor] = {}

    def revise(
        self, known: Sequence[str], texts: Sequence[str], tokenize: Tokenize, max_tokens: int
    ) -> Catalog:
        """The catalog of other texts, in memory alone: only those that are new are tokenised.

        It has the folder of this one, and cannot be sent to another process.

        Args:
            known: The texts of this catalog.
            texts: Those of the other one.
            tokenize: As in `from_texts`.
            max_tokens: As in `from_texts`.
        """
        place = {text: row for row, text in enumerate(known)}
        fresh = [text for text in dict.fromkeys(texts) if text not in place]
        ids, offsets = _encode_texts(fresh, tokenize, max_tokens)
        place |= {text: len(known) + row for row, text in enumerate(fresh)}
        starts = np.concatenate([self._offsets, self._offsets[-1] + offsets[1:]])
        rows = np.array([place[text] for text in texts], dtype=np.int64)
        sizes = np.diff(starts)[rows]
        out = copy.copy(self)
        out._offsets = np.concatenate([[0], np.cumsum(sizes)])
        shift = np.repeat(starts[rows] - out._offsets[:-1], sizes)
        out._ids = np.concatenate([self._ids, ids])[shift + np.arange(len(shift))]
        out._resident = {}
        return out

    def __reduce__(self) -> tuple[type[Catalog], tuple[Path]]:
        return Catalog, (self.folder,)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        tokenize: Tokenize,
        tokenizer_key: str,
        store: Store,
        max_tokens: int,
    ) -> Catalog:
        """The catalog of these texts, tokenised now or read from the store.

        Args:
            texts: One text an item, by catalog row.
            tokenize: Raw token ids of each text, without special tokens.
            tokenizer_key: Fingerprint of the tokenizer: other tokens mean another key.
            store: Where the tokens are kept.
            max_tokens: Longer texts are cut after so many tokens.

        Raises:
            DataError: No text, `max_tokens` below 1, or a tokenizer that returns a wrong number
                of lists or ids outside 0..2^31-1.
        """
        if not texts:
            raise DataError("the catalog has no item texts; check the source's items file")
        if max_tokens < 1:
            raise DataError(f"max_tokens is {max_tokens}; use at least 1")
        parts = {
            "format": _FORMAT,
            "texts": hash_texts(texts),
            "items": len(texts),
            "tokenizer": tokenizer_key,
            "max_tokens": max_tokens,
        }

        def write(folder: Path) -> None:
            print_status(f"tokenising {len(texts):,} texts")
            ids, offsets = _encode_texts(texts, tokenize, max_tokens)
            np.save(folder / "ids.npy", ids)
            np.save(folder / "offsets.npy", offsets)

        return cls(store.get_or_build("catalog", parts, write))

    def locate_rows(self, rows: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Start and length, each (U,), of rows (U,).

        Raises:
            DataError: A row lies outside the catalog (a negative one would wrap silently).
        """
        place: npt.NDArray[np.int64] = rows.detach().cpu().numpy().astype(np.int64, copy=False)
        if place.size and (place.min() < 0 or place.max() >= len(self)):
            bad = place[(place < 0) | (place >= len(self))][0]
            raise DataError(
                f"row {bad} is not in the catalog of {len(self)} items; "
                "build the data set again from the same items"
            )
        starts = self._offsets[place]
        return starts, self._offsets[place + 1] - starts

    def count_tokens(self, rows: Tensor) -> tuple[int, ...]:
        """Number of raw tokens of each row of `rows` (U,) int64.

        Raises:
            DataError: A row lies outside the catalog.
        """
        return tuple(self.locate_rows(rows)[1].tolist())

    def gather_tokens(self, rows: Tensor, device: torch.device | None = None) -> Ragged:
        """Raw token ids, int64, of the items of `rows` (U,) int64 in that order.

        Args:
            rows: Catalog rows on the host.
            device: Where the ids are to lie; None and a CPU read the files, which are memory maps.

        Raises:
            DataError: A row lies outside the catalog.
        """
        starts, sizes = self.locate_rows(rows)
        if device is not None and device.type != "cpu":
            return _gather_slices(self.get_device_ids(device), starts, sizes)
        ends = np.cumsum(sizes)
        # place in the flat file = place in the output + how far this item's start is moved
        shift = np.repeat(starts - (ends - sizes), sizes)
        return self.gather_places(shift + np.arange(len(shift)), tuple(sizes.tolist()))

    def gather_places(
        self,
        places: npt.NDArray[np.int64],
        sizes: tuple[int, ...],
        device: torch.device | None = None,
    ) -> Ragged:
        """Raw token ids, int64, that stand at some places among those of all texts.

        Args:
            places: (sum of sizes,) on the host.
            sizes: How many make a text.
            device: Where the ids are to lie; None and a CPU read the files.
        """
        if device is not None and device.type != "cpu":
            at = upload(torch.from_numpy(places), device)
            return Ragged(self.get_device_ids(device)[at].long(), sizes)
        return Ragged(torch.from_numpy(self._ids[places].astype(np.int64)), sizes)

    def iter_contents(self) -> Iterator[bytes]:
        """The token ids of each text in order, as bytes that are equal where texts are."""
        for start, end in zip(self._offsets[:-1].tolist(), self._offsets[1:].tolist(), strict=True):
            yield self._ids[start:end].tobytes()

    def compute_token_share(self, token: int) -> float:
        """Share of one token among those of all texts; 0 where there is none."""
        return float(np.mean(self._ids == token)) if len(self._ids) else 0.0

    def get_device_ids(self, device: torch.device) -> Tensor:
        """All token ids, int32, on `device`; copied there at the first call and kept."""
        if device not in self._resident:
            self._resident[device] = torch.from_numpy(np.array(self._ids)).to(device)
        return self._resident[device]


def _gather_slices(
    ids: Tensor, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> Ragged:
    """Slices of flat ids on a device; nothing in here waits for it.

    Args:
        ids: (N,) all ids.
        starts: (U,) first place of each slice.
        sizes: (U,) length of each slice.
    """
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    shift, count = upload(
        torch.from_numpy(np.stack([starts - (ends - sizes), sizes])), ids.device
    ).unbind()
    # the total is known on the host, so that the device need not be asked for it
    place = torch.repeat_interleave(shift, count, output_size=total)
    place = place + torch.arange(total, device=ids.device)
    return Ragged(ids[place].long(), tuple(sizes.tolist()))


def _encode_texts(
    texts: Sequence[str], tokenize: Tokenize, max_tokens: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Flat ids (sum of lengths,) and offsets (I + 1,) of the texts.

    Raises:
        DataError: The tokenizer returned a wrong number of lists or an id outside int32.
    """
    flat: list[npt.NDArray[np.int32]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        lists = [ids[:max_tokens] for ids in tokenize(part)]
        if len(lists) != len(part):
            raise DataError(
                f"the tokenizer returned {len(lists)} lists for {len(part)} texts; "
                "it must return one list of ids a text"
            )
        wide = np.array([i for ids in lists for i in ids], dtype=np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > _MAX_ID):
            raise DataError(
                f"the tokenizer returned an id outside 0..{_MAX_ID} for the item texts "
                f"{start}..{start + len(part) - 1}; use a tokenizer with ids in that range"
            )
        flat.append(wide.astype(np.int32))
        lengths.extend(len(ids) for ids in lists)
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return np.concatenate([np.empty(0, dtype=np.int32), *flat]), offsets
