"""What the words of a text add to a score, put together of its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recsys.data.columns.words import COUNTED
from recsys.trained.explanations.parts import WordPart
from recsys.types import Passage

_WORD = re.compile(COUNTED)


def assemble_words(
    passage: Passage, values: Sequence[float], matches: Sequence[str] = ()
) -> list[WordPart]:
    """The words of a text, of which tokens are read, in their order.

    A word is what stands between blanks, and each character of Chinese and Japanese. Each has the
    sum of what its tokens add; a token of several words is divided evenly among them, and one of
    none, such as a blank, goes to the word behind it, or to the last.

    Args:
        passage: The text.
        values: (tokens,) what each adds.
        matches: (tokens,) what each finds its like in; empty where tokens find none.

    Returns:
        Their shares are all 0. A word without a token, as behind what is read, is not there.
    """
    text, begin = passage.text, passage.begin
    words = [word.span() for word in _WORD.finditer(text, begin)]
    totals: dict[int, float] = {}
    strongest: dict[int, tuple[float, str]] = {}
    for token, ((start, end), value) in enumerate(zip(passage.spans, values, strict=True)):
        own = [n for n, (first, last) in enumerate(words) if start < last and end > first]
        if not own:
            own = [n for n, (_, last) in enumerate(words) if last > start][:1] or [len(words) - 1]
        for word in own:
            totals[word] = totals.get(word, 0.0) + value / len(own)
            if matches and abs(value) >= strongest.get(word, (0.0, ""))[0]:
                strongest[word] = abs(value), matches[token]
    if not words:  # a text of blanks has tokens in some vocabularies
        return []
    return [
        WordPart(
            text[words[n][0] : words[n][1]],
            words[n][0] - begin,
            words[n][1] - begin,
            total,
            0.0,
            strongest.get(n, (0.0, ""))[1],
        )
        for n, total in sorted(totals.items())
    ]
