"""What the words of the texts behind a score add to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recsys.trained.explanations.parts import Reading, ReadText
from recsys.trained.explanations.words.assembly import assemble_words
from recsys.trained.explanations.words.gradients import integrate_tokens
from recsys.types import Passage, TokenScore, TokenSplit


def make_reading(score: TokenScore | TokenSplit, whole: float, ids: Sequence[str]) -> Reading:
    """What each word adds to a score.

    Args:
        score: The score by its tokens.
        whole: The score as the model gives it.
        ids: Of all items, by catalog row.

    Raises:
        ConfigError: Captum is missing.
    """
    if isinstance(score, TokenSplit):
        values = [each.double().tolist() for each in score.values]
        total = sum(map(sum, values)) + sum(score.rest.values())
        miss = abs(total - whole)
        texts = _name_texts(score.passages, values, score.matches, ids)
        error = miss / max(abs(whole), 1e-6) if miss else 0.0
        return Reading(texts, "exact", whole, 0.0, dict(score.rest), error, 0)
    parts = integrate_tokens(score)
    values = [parts.values[score.owner == number].tolist() for number in range(len(score.passages))]
    texts = _name_texts(score.passages, values, (), ids)
    return Reading(
        texts, "gradients", parts.score, parts.baseline, parts.rest, parts.error, parts.points
    )


def choose_readings(
    scores: Sequence[TokenScore | TokenSplit], rows: Sequence[int]
) -> list[TokenScore | TokenSplit]:
    """Those that are computed, of titles that are read apart those of some catalog rows alone.

    Args:
        scores: All.
        rows: Of the history, in the order in which they are given.
    """
    apart = {
        score.passages[0].row: score
        for score in scores
        if isinstance(score, TokenScore) and [each.kind for each in score.passages] == ["title"]
    }
    others = [score for score in scores if not any(score is each for each in apart.values())]
    return [*others, *(apart[row] for row in rows if row in apart)]


def _name_texts(
    passages: Sequence[Passage],
    values: Sequence[Sequence[float]],
    matches: Sequence[Sequence[str]],
    ids: Sequence[str],
) -> tuple[ReadText, ...]:
    """The texts of which something is read, with the shares of their words."""
    texts = []
    for number, (passage, own) in enumerate(zip(passages, values, strict=True)):
        words = assemble_words(passage, own, matches[number] if matches else ())
        item = None if passage.row is None else str(ids[passage.row])
        if words:
            texts.append(ReadText(passage.kind, item, passage.text[passage.begin :], tuple(words)))
    total = sum(abs(word.value) for text in texts for word in text.words) or 1.0
    return tuple(
        replace(text, words=tuple(replace(word, share=word.value / total) for word in text.words))
        for text in texts
    )
