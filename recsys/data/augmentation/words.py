"""Which word of its text each token belongs to, so that words can be left out whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.data.batches.catalog import CHUNK, hash_texts
from recsys.data.columns.words import COUNTED
from recsys.runtime.store import Store

Spans = Sequence[tuple[int, int]]
FindSpans = Callable[[list[str]], Iterable[Spans]]

_FORMAT = 1  # raise it when the files change, so that old folders are not read
_WORD = re.compile(COUNTED)


def number_words(text: str, spans: Spans, begin: int) -> list[int]:
    """Number of the word of each token, from 0; -1 for a token of the prompt, and for a blank.

    A word is what stands between blanks, and each character of Chinese and Japanese.

    Args:
        text: The text, its prompt included.
        spans: First character of each token and the one behind its last.
        begin: Length of the prompt.
    """
    owner = np.full(len(text) + 1, -1, dtype=np.int64)
    for number, word in enumerate(_WORD.finditer(text, begin)):
        owner[word.start() : word.end()] = number
    # a token may begin with the blank before its word
    return [int(owner[start:end].max(initial=-1)) for start, end in spans]


def build_word_numbers(
    texts: Sequence[str], begin: int, spans: FindSpans, tokenizer_key: str, store: Store, most: int
) -> npt.NDArray[np.int32]:
    """(sum of tokens,) `number_words` of all texts, as `Catalog` has their tokens.

    Args:
        texts: The texts, their prompt included.
        begin: Length of the prompt.
        spans: Characters of the tokens of some texts.
        tokenizer_key: Fingerprint of the tokenizer.
        store: Where they are kept.
        most: Tokens of a text that are kept.
    """
    parts = {
        "format": _FORMAT,
        "texts": hash_texts(texts),
        "prompt": begin,
        "tokenizer": tokenizer_key,
        "max_tokens": most,
    }

    def write(folder: Path) -> None:
        out: list[int] = []
        for start in range(0, len(texts), CHUNK):
            block = list(texts[start : start + CHUNK])
            for text, found in zip(block, spans(block), strict=True):
                out.extend(number_words(text, found[:most], begin))
        np.save(folder / "words.npy", np.array(out, dtype=np.int32))

    folder = store.get_or_build("words", parts, write)
    numbers: npt.NDArray[np.int32] = np.load(folder / "words.npy", mmap_mode="r")
    return numbers
