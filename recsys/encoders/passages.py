"""Scores as functions of the tokens of a text or a pair, and where these tokens stand in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from recsys.data.batches.user_texts import PlainUserTexts
from recsys.data.moments import MOMENT
from recsys.encoders.pairs import PairLayout
from recsys.types import AskedText, Batch, Passage, Ragged, TokenScore

if TYPE_CHECKING:  # it imports transformers, which what only counts does without
    from recsys.encoders.encoder import Encoder


@dataclass(frozen=True)
class Piece:
    """A text of which a sequence is made.

    Attributes:
        kind: As of a `Passage`.
        text: It, without a prompt.
        row: Catalog row of an item whose text it is, else None.
        prompt: What it was tokenised with, as one text.
        ends: Whether of a text that is too long the end is read, not the beginning.
    """

    kind: Literal["item", "title", "profile", "context", "text"]
    text: str
    row: int | None = None
    prompt: str = ""
    ends: bool = False


@dataclass(frozen=True)
class TextSpans:
    """Where the tokens of a run's texts stand in them.

    Attributes:
        find: First character of each token of each text, and the one behind its last.
        item_prompt: What the text of an item is tokenised with.
        query_prompt: What a profile, or a text that asks, is tokenised with.
    """

    find: Callable[[list[str]], Iterable[Sequence[tuple[int, int]]]]
    item_prompt: str
    query_prompt: str

    def make_passages(
        self, pieces: Sequence[Piece], owner: Tensor
    ) -> tuple[tuple[Passage, ...], Tensor]:
        """Passages of the pieces of a sequence.

        Args:
            pieces: In the order in which they stand in it.
            owner: (L,) the piece of each token of the sequence, -1 for none; of a piece, the first
                tokens are there, or the last where it says so.

        Returns:
            The passages, and (L,) the passage of each token: the tokens of prompts belong to none.
        """
        owner, passages = owner.clone(), []
        texts = [piece.prompt + piece.text for piece in pieces]
        for number, (piece, spans) in enumerate(zip(pieces, self.find(texts), strict=True)):
            at, begin = torch.nonzero(owner == number).flatten(), len(piece.prompt)
            whole = list(spans)
            read = whole[len(whole) - len(at) :] if piece.ends else whole[: len(at)]
            own = torch.tensor([not begin or end > begin for _, end in read], dtype=torch.bool)
            owner[at[~own]] = -1
            kept = tuple(span for span, mine in zip(read, own.tolist(), strict=True) if mine)
            passages.append(Passage(piece.kind, texts[number], begin, kept, piece.row))
        return tuple(passages), owner


def list_query_pieces(
    written: PlainUserTexts, batch: Batch, asked: AskedText | None, prompt: str, latest: bool
) -> list[Piece]:
    """What the text of a batch's only query is made of.

    Args:
        written: The texts of users.
        batch: The batch.
        asked: What is looked for in place of profile and titles, or None.
        prompt: What a profile, or a text that asks, is tokenised with.
        latest: Whether the end is read of a text that asks, and of what a user said up to now.
    """
    said = MOMENT in written.context  # the first piece then
    return [
        # An empty profile is given without a prompt.
        Piece(
            kind,
            text,
            row,
            prompt if text and kind in ("profile", "text") else "",
            ends=latest and (kind == "text" or (said and not number)),
        )
        for number, (kind, row, text) in enumerate(
            written.list_pieces(batch.at_host, None if asked is None else asked.text)
        )
    ]


def make_text_score(
    encoder: Encoder,
    spans: TextSpans,
    pieces: Sequence[Piece],
    tokens: Ragged,
    owner: Tensor,
    compare: Callable[[Tensor], Tensor],
    without: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    query: bool = False,
) -> TokenScore:
    """A score as a function of the tokens of a text that passes the encoder on its own.

    Args:
        encoder: Makes a vector of it.
        spans: Where tokens stand in texts.
        pieces: What the text is made of.
        tokens: Its raw token ids, one text.
        owner: (L,) the piece of each token, -1 for none.
        compare: (S, V) vectors of texts -> (S,) scores.
        without: The same without what else the score has, as of a `TokenScore`.
        query: Whether it is the text of a user and not of an item.
    """
    (chunk,) = encoder.make_micro_batches(tokens)
    before, after = len(encoder.specials.prefix), len(encoder.specials.suffix)
    kept = min(len(owner), chunk.lengths[0] - before - after)
    kinds = torch.full((chunk.lengths[0],), 2)
    kinds[before : before + kept] = 0
    passages, owned = spans.make_passages(pieces, owner[:kept])
    places = torch.full_like(kinds, -1)
    places[before : before + kept] = owned

    def score(how: Callable[[Tensor], Tensor], ids: Tensor, kinds: Tensor) -> Tensor:
        return how(encoder.encode_padded(ids, (kinds >= 0).expand(len(ids), -1), query))

    return TokenScore(
        passages,
        chunk.ids[0],
        kinds,
        places,
        encoder.specials.pad,
        encoder.embedding,
        partial(score, compare),
        {name: partial(score, how) for name, how in (without or {}).items()},
    )


def make_pair_score(
    encoder: Encoder,
    spans: TextSpans,
    pieces: tuple[Sequence[Piece], Sequence[Piece]],
    texts: tuple[Ragged, Ragged],
    owners: tuple[Tensor, Tensor],
    compare: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> TokenScore:
    """A score as a function of the tokens of two texts that pass the encoder as one sequence.

    Args:
        encoder: Makes their states.
        spans: Where tokens stand in texts.
        pieces: What the first and the second text are made of.
        texts: Raw token ids of both, one text each.
        owners: (L,) the piece of each token of both, -1 for none.
        compare: Mean states of both texts and of the whole, (S, D) each -> (S,) scores.
    """
    first = torch.zeros(1, dtype=torch.long)
    layout = PairLayout(*texts, first, first, encoder.specials, encoder.max_length)
    index, kind = layout.compute_places((0,))
    ids, kinds = layout.table[index][0], kind[0]
    owner = torch.full_like(kinds, -1)
    for number, (mine, shift) in enumerate(zip(owners, (0, len(pieces[0])), strict=True)):
        at = torch.nonzero(kinds == number).flatten()
        owner[at] = torch.where(mine >= 0, mine + shift, -1)[: len(at)]
    passages, owner = spans.make_passages([*pieces[0], *pieces[1]], owner)

    def score(ids: Tensor, kinds: Tensor) -> Tensor:
        return compare(*encoder.compute_pair_means(ids, kinds.expand(len(ids), -1)))

    return TokenScore(passages, ids, kinds, owner, encoder.specials.pad, encoder.embedding, score)
