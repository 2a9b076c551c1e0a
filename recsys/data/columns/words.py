"""The words of a text, also of scripts that put no blanks between them."""

from __future__ import annotations

import re

_SYLLABIC = (
    "\u3005-\u3007\u3021-\u3029"  # marks of repetition, numerals
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
)
_LETTERED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ece\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
)
_WORDS = re.compile(
    rf"(?P<syllabic>[{_SYLLABIC}]+)|(?P<lettered>[{_LETTERED}]+)"
    rf"|(?:(?![{_SYLLABIC}{_LETTERED}])\w)+"
)
_SIZES = {"syllabic": (1, 2), "lettered": (3,)}
"""Lengths of the pieces: a character of the first kind says about a syllable, one of the other
about a letter, vowel signs and tone marks included."""


COUNTED = rf"[{_SYLLABIC}]|[^\s{_SYLLABIC}]+"
"""What counts as a word where a text's length is asked for: what stands between blanks, and each
character of Chinese and Japanese."""


def split_words(text: str) -> list[str]:
    """The words of a text in order, each run of word characters being one.

    Chinese, Japanese, Thai, Lao, Khmer and Burmese write no blanks between words, so that a run is
    a clause: in its place stand all its pieces of a few characters, as is usual in retrieval for
    texts that nobody has segmented (Nie et al., On the Use of Words and N-grams for Chinese
    Information Retrieval, IRAL 2000). A text in other scripts has the words it always had.
    """
    return [text[start:end] for start, end in find_words(text)]


def find_words(text: str) -> list[tuple[int, int]]:
    """First character of each of the words of `split_words`, and the one behind its last."""
    found: list[tuple[int, int]] = []
    for match in _WORDS.finditer(text):
        if match.lastgroup is None:
            found.append(match.span())
        else:
            found += _find_ngrams(*match.span(), _SIZES[match.lastgroup])
    return found


def _find_ngrams(start: int, end: int, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """All pieces of a run of the sizes; the run itself where it is shorter than all of them."""
    if end - start < sizes[0]:
        return [(start, end)]
    return [(at, at + size) for size in sizes for at in range(start, end - size + 1)]
