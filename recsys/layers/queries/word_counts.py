"""Words of texts as counts, and what they weigh; words are known by their digests alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from recsys.data.columns.words import split_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Vocabulary:
    """The words of some texts, each by a digest of 64 bits.

    What is kept of users' texts so holds none of their words as they are written: a name that
    somebody gave can be guessed, and not read.

    Args:
        digests: (W,) of the words, in any order; a word's place is its column.
    """

    def __init__(self, digests: Ints) -> None:
        self.digests = digests
        self._columns = {digest: column for column, digest in enumerate(digests.tolist())}

    @classmethod
    def collect(cls, texts: Sequence[str]) -> Vocabulary:
        """The words of texts, by digest."""
        known = {digest for text in texts for digest in _split_digests(text)}
        return cls(np.array(sorted(known), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.digests)

    def count(self, texts: Sequence[str]) -> csr_matrix:
        """(N, W) float32: how often each text has each word; unknown words count nothing."""
        from scipy.sparse import csr_matrix

        columns, ends = [], [0]
        for text in texts:
            known = (self._columns.get(digest) for digest in _split_digests(text))
            columns += [column for column in known if column is not None]
            ends.append(len(columns))
        one = np.ones(len(columns), dtype=np.float32)
        out = csr_matrix(
            (one, np.array(columns, dtype=np.int64), np.array(ends, dtype=np.int64)),
            shape=(len(texts), len(self)),
        )
        out.sum_duplicates()
        return out


def compute_tfidf(counts: csr_matrix, idf: Floats) -> csr_matrix:
    """Counts (N, W) as 1 + log of themselves, times what words weigh (W,), each row at length 1."""
    from scipy.sparse import csr_matrix, diags

    out = csr_matrix(counts, copy=True)
    out.data = 1 + np.log(out.data)
    out = (out @ diags(idf)).tocsr()
    lengths = np.sqrt(np.asarray(out.multiply(out).sum(1)).ravel())
    lengths[lengths == 0] = 1
    return (diags(1 / lengths) @ out).tocsr().astype(np.float32)


def compute_idf(counts: csr_matrix) -> Floats:
    """(W,) log((1 + texts) / (1 + texts with the word)) + 1, as scikit-learn has it."""
    has = np.bincount(counts.indices, minlength=counts.shape[1])
    out: Floats = (np.log((1 + counts.shape[0]) / (1 + has)) + 1).astype(np.float32)
    return out


def _split_digests(text: str) -> list[int]:
    return [_compute_digest(word) for word in split_words(text.lower())]


@lru_cache(maxsize=1 << 18)
def _compute_digest(word: str) -> int:
    data = word.encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
