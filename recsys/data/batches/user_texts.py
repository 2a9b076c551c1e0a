"""A user as one text: what is known of the query, the profile, the titles, the latest first.

Composed from tokens that were made once, the same way in training, test and recommendation. What is
known of the query comes first, where no history is long enough to cut it away, and the latest title
before the others, so that what does not fit is the oldest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from recsys.data.augmentation.texts import TrainingTexts
from recsys.data.batches.catalog import Catalog
from recsys.types import Batch, Ragged

Piece = TypeVar("Piece")


def collect_pieces(
    batch: Batch,
    titles: Sequence[Piece],
    profiles: Sequence[Piece],
    context: Mapping[str, Sequence[Piece]],
) -> list[list[Piece]]:
    """What the text of each query of a batch is made of, in order.

    Args:
        batch: The batch, on the host.
        titles: Of each item of its plan.
        profiles: Of each of its rows.
        context: Of each code of a query's context, by name.
    """
    history = batch.history.tolist()
    pieces: list[list[Piece]] = [[] for _ in range(len(batch.query))]
    for name, of in context.items():
        for own, code in zip(pieces, batch.context[name].tolist(), strict=True):
            own.append(of[code])
    for own, (row, prefix) in zip(pieces, batch.query.tolist(), strict=True):
        own.append(profiles[row])
        own.extend(titles[i] for i in reversed(history[row][:prefix]) if i >= 0)
    return pieces


class PlainUserTexts:
    """The same texts as they are written, whole: for those who read words, not tokens.

    Args:
        items: Texts of the catalog.
        users: Texts of the users, by user row.
        context: What is said of each code of a query's context, by name.
    """

    def __init__(
        self, items: Sequence[str], users: Sequence[str], context: Mapping[str, Sequence[str]]
    ) -> None:
        self.items, self.users, self.context = items, users, context

    def compose_plain_texts(self, batch: Batch) -> list[str]:
        """Texts of a batch's queries (Q texts), empty where nothing is known."""
        host = batch.at_host
        titles = [self.items[row] for row in host.plan.items.tolist()]
        profiles = [self.users[row] if row >= 0 else "" for row in host.users.tolist()]
        return [
            "; ".join(filter(None, p)) for p in collect_pieces(host, titles, profiles, self.context)
        ]


class UserTexts:
    """Token ids of users, raw (without special tokens).

    Args:
        catalog: Tokens of the item texts.
        profiles: Tokens of the user texts by user row, or None where users have none.
        separator: Token ids between the pieces, such as those of ";".
        max_tokens: Longest text; a title that does not fit is cut.
        context: Token ids of what is said of each code of a query's context, by name; none for
            a code that nothing is said of. None: the context is no part of the text.
        prompt: Token ids that stand before every text. Where the context is no part of it, a
            profile is given with the prompt, tokenised as one text, unless it is empty.
        training: The item texts as training reads them, where something is left out there; None:
            they are whole.
    """

    def __init__(
        self,
        catalog: Catalog,
        profiles: Catalog | None,
        separator: tuple[int, ...],
        max_tokens: int,
        context: Mapping[str, Sequence[Sequence[int]]] | None = None,
        prompt: tuple[int, ...] = (),
        training: TrainingTexts | None = None,
    ) -> None:
        self.catalog, self.profiles, self.training = catalog, profiles, training
        self.separator = torch.tensor(separator, dtype=torch.long)
        self.max_tokens = max_tokens
        self.context = {
            name: [torch.tensor(ids, dtype=torch.long) for ids in of]
            for name, of in (context or {}).items()
        }
        self.prompt = torch.tensor(prompt, dtype=torch.long)

    def compose_tokens(self, batch: Batch) -> Ragged:
        """Texts of a batch's queries, on the host, (Q texts)."""
        host = batch.at_host
        plan = host.plan
        if plan.epoch is None or self.training is None:
            titles = self.catalog.gather_tokens(plan.items).split()
        else:
            titles = self.training.gather_tokens(plan.items, plan.epoch).split()
        profiles = self._gather_profiles(host.users)
        at = len(self.context)
        out = []
        for parts in collect_pieces(host, titles, profiles, self.context):
            whole = self._join(parts)
            # A profile that comes first has it already: the two were tokenised together.
            out.append(self._prepend_prompt(whole) if at or not len(parts[0]) else whole)
        return Ragged.from_sequences(out) if out else Ragged(torch.empty(0, dtype=torch.long), ())

    def compose_with_text(self, batch: Batch, text: Ragged) -> Ragged:
        """A text in place of profile and titles, for a batch of one query."""
        host = batch.at_host
        pieces = [of[int(host.context[name])] for name, of in self.context.items()]
        whole = self._join([*pieces, *text.split()])
        return Ragged.from_sequences([self._prepend_prompt(whole) if self.context else whole])

    def _prepend_prompt(self, text: Tensor) -> Tensor:
        """A text behind the prompt, cut to the longest length."""
        return torch.cat([self.prompt, text])[: self.max_tokens] if len(self.prompt) else text

    def _gather_profiles(self, users: Tensor) -> list[Tensor]:
        """The profile of each row, empty for someone unknown (-1)."""
        none = torch.empty(0, dtype=torch.long)
        if self.profiles is None or not len(users):
            return [none] * len(users)
        known = self.profiles.gather_tokens(users.clamp(min=0)).split()
        return [t if u >= 0 else none for t, u in zip(known, users.tolist(), strict=True)]

    def _join(self, pieces: list[Tensor]) -> Tensor:
        """Pieces with separators between them, cut to the longest length."""
        parts: list[Tensor] = []
        total = 0
        for piece in pieces:
            if not len(piece):
                continue
            if parts:
                parts.append(self.separator)
                total += len(self.separator)
            if total >= self.max_tokens:
                break
            parts.append(piece)
            total += len(piece)
        if not parts:
            return torch.empty(0, dtype=torch.long)
        return torch.cat(parts)[: self.max_tokens]
