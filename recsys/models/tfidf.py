"""Words of a history's texts against those of an item, as a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.architectures.tfidf import Config
from recsys.data.columns.words import find_words, split_words
from recsys.encoders.passages import Piece
from recsys.layers.baselines import gather_history_rows, make_history_matrix, split_history
from recsys.models.words import WordRecommender
from recsys.recommender.components import Components
from recsys.types import (
    AskedText,
    Batch,
    Passage,
    ScoreSplit,
    TokenSplit,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Model(WordRecommender):
    """Cosines of term weights; it needs no encoder and no training."""

    needs_history = True

    def __init__(self, parts: Components, config: Config) -> None:
        super().__init__(parts)
        self.written = parts.written if config.user == "text" else None
        self.needs_history = self.written is None
        self.last = config.history == "last"
        self.decay = config.recency if config.history == "recency" else 0.0
        from sklearn.feature_extraction.text import TfidfVectorizer

        # Any run of word characters is a word: titles are full of model numbers and "3".
        vectorizer = TfidfVectorizer(
            sublinear_tf=config.sublinear, tokenizer=split_words, token_pattern=None
        )
        self.vectorizer = vectorizer
        # The words and what they weigh are those of the fit, whatever was added since.
        fitted = None if parts.fitted is None else parts.fitted["text"].drop_nulls().to_list()
        vectorizer.fit(parts.texts if fitted is None else fitted)
        self.vectors: csr_matrix = vectorizer.transform(parts.texts).astype(np.float32).tocsr()

    def make_serving_state(self) -> Mapping[str, Tensor]:
        """Nothing: the texts are all that it knows."""
        return {}

    def queries(self, batch: Batch, items: Tensor) -> Tensor:
        """The history's mean or the text's own weights, dense, (Q, words); zero where unknown."""
        if self.written is not None:
            return self.compute_weights(self.written.compose_plain_texts(batch)).to(
                batch.users.device
            )
        weights, total = self._weigh_history(batch, items)
        mean = (weights @ self.vectors).toarray() / total
        return torch.from_numpy(mean).to(batch.users.device)

    def _weigh_history(
        self, batch: Batch, items: Tensor
    ) -> tuple[csr_matrix, npt.NDArray[np.float32]]:
        """What each item of the catalog counts in a history (Q, I), and the sums of it (Q, 1)."""
        rows = gather_history_rows(batch, items)
        if self.last:
            final = (rows >= 0).sum(1, keepdim=True) - 1
            rows = rows.gather(1, final.clamp(min=0))
        weights = make_history_matrix(rows, self.vectors.shape[0], self.decay, binary=False)
        return weights, np.maximum(np.asarray(weights.sum(1)), np.finfo(np.float32).tiny)

    def split_scores(
        self, batch: Batch, rows: Tensor, catalog: Tensor | None = None
    ) -> ScoreSplit | None:
        """Scores of one history, which are sums over its texts; of a user's text they are not."""
        if self.written is not None:
            return None
        own, (weights, total) = batch.plan.items, self._weigh_history(batch, batch.plan.items)
        vectors = split_history(weights, own) @ self.vectors / total[0, 0]
        parts = (self.vectors[rows.cpu().numpy()] @ vectors.T).toarray()
        return ScoreSplit(torch.from_numpy(parts.astype(np.float32)).to(rows.device), {})

    def make_token_scores(
        self, batch: Batch, row: int, asked: AskedText | None
    ) -> list[TokenSplit]:
        """The score by the words of the item's text, and by those of what asks."""
        item = self.vectors[row]
        if asked is not None or self.written is not None:
            pieces = [Piece("text", asked.text)] if asked is not None else []
            if asked is None and self.written is not None:
                pieces = [
                    Piece(kind, text, title)
                    for kind, title, text in self.written.list_pieces(batch.at_host)
                    if text
                ]
            whole = self.vectorizer.transform(["; ".join(piece.text for piece in pieces)])
            products = whole.astype(np.float32).multiply(item).toarray()[0]
            groups = [(pieces, products)]
        else:
            weights, total = self._weigh_history(batch, batch.plan.items)
            titles = batch.plan.items.tolist()
            vectors = split_history(weights, batch.plan.items) @ self.vectors / total[0, 0]
            groups = [
                ([Piece("title", self.parts.texts[title], title)], own)
                for title, own in zip(titles, vectors.multiply(item).toarray(), strict=True)
            ]
        parts = [self._divide(*group) for group in groups]
        asking = [split for group in parts for split in group]
        if not asking or not any(passage.spans for passage, _ in asking):
            return []  # popularity answers
        of_item = self._divide(
            [Piece("item", self.parts.texts[row], row)], sum(own for _, own in groups)
        )
        return [
            TokenSplit(tuple(p for p, _ in splits), tuple(v for _, v in splits))
            for splits in (of_item, asking)
        ]

    def _divide(
        self, pieces: list[Piece], products: npt.NDArray[np.float32]
    ) -> list[tuple[Passage, Tensor]]:
        """What each word adds: what its term adds, over how often the pieces have it.

        Args:
            pieces: Texts that were weighed as one.
            products: (words,) what each term adds.
        """
        spans = [_find_terms(piece.text) for piece in pieces]
        columns = [
            torch.tensor([self.vectorizer.vocabulary_.get(term, -1) for term, _, _ in own]).long()
            for own in spans
        ]
        every = torch.cat(columns)
        known = every[every >= 0]
        counts = torch.bincount(known, minlength=len(products)).clamp(min=1)
        values = torch.cat([torch.from_numpy(products) / counts, torch.zeros(1)])  # -1: unknown
        return [
            (
                Passage(piece.kind, piece.text, 0, tuple(span[1:] for span in own), piece.row),
                values[at],
            )
            for piece, own, at in zip(pieces, spans, columns, strict=True)
        ]

    def weigh_texts(self, texts: list[str]) -> csr_matrix:
        """(Q, words) term weights of texts."""
        return self.vectorizer.transform(texts).astype(np.float32)


def _find_terms(text: str) -> list[tuple[str, int, int]]:
    """Each term of a text as the vectorizer has it, in lower case, and where it stands."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return [(lowered[start:end], start, end) for start, end in find_words(lowered)]
    # Some letters become two: the place of each in the text.
    places = [place for place, sign in enumerate(text) for _ in sign.lower()]
    return [
        (lowered[start:end], places[start], places[end - 1] + 1)
        for start, end in find_words(lowered)
    ]
