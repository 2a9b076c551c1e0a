"""A user as one text: what is known of the query, the profile, the titles, the latest first.

Composed from tokens that were made once, the same way in training, test and recommendation. What is
known of the query comes first, where no history is long enough to cut it away, and the latest title
before the others, so that what does not fit is the oldest. What the user said up to the query, such
as a dialogue, comes before all else, and of one that is too long the end is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, overload

import torch
from torch import Tensor

from recsys.data.augmentation.texts import TrainingTexts
from recsys.data.batches.catalog import Catalog
from recsys.data.moments import MOMENT
from recsys.types import Batch, Ragged

Piece = TypeVar("Piece")

PieceKind = Literal["context", "profile", "title", "text"]
"""What a piece of a query's text is: the last kind stands for a text that was asked for."""


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


class _LatestTokens(Sequence[Tensor]):
    """The last tokens of each text.

    Args:
        texts: Tokens of the texts.
        most: How many; None for all.
    """

    def __init__(self, texts: Catalog, most: int | None) -> None:
        self._texts, self._most = texts, most

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, row: int) -> Tensor: ...

    @overload
    def __getitem__(self, row: slice) -> list[Tensor]: ...

    def __getitem__(self, row: int | slice) -> Tensor | list[Tensor]:
        rows = torch.arange(len(self))[row] if isinstance(row, slice) else torch.tensor([row])
        kept = [t if self._most is None else t[-self._most :] for t in self._gather(rows)]
        return kept if isinstance(row, slice) else kept[0]

    def _gather(self, rows: Tensor) -> list[Tensor]:
        return self._texts.gather_tokens(rows).split() if len(rows) else []


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

    def list_pieces(
        self, batch: Batch, text: str | None = None
    ) -> list[tuple[PieceKind, int | None, str]]:
        """What the text of a batch's only query is made of, in the order of `UserTexts`.

        Args:
            batch: The batch, on the host.
            text: Stands in place of profile and titles; None: nothing does.

        Returns:
            Kind, catalog row of a title, and text of each piece; of an empty one, too.
        """
        Kinded = tuple[PieceKind, int | None, str]
        context: dict[str, list[Kinded]] = {
            name: [("context", None, each) for each in of] for name, of in self.context.items()
        }
        if text is not None:
            said = [of[int(batch.context[name])] for name, of in context.items()]
            return [*said, ("text", None, text)]
        titles: list[Kinded] = [("title", r, self.items[r]) for r in batch.plan.items.tolist()]
        profiles: list[Kinded] = [
            ("profile", None, self.users[row] if row >= 0 else "") for row in batch.users.tolist()
        ]
        (pieces,) = collect_pieces(batch, titles, profiles, context)
        return pieces


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
        moments: Tokens of what users said, by its code; of each the last ones are read that fit.
            None: nowhere is anything said.
        apart: Whether the prompt stands apart, as a text that asks has it, although nothing is
            known of a query; where something is, it does.
        latest: How many tokens are kept of the end of what a user said, and of a text that asks in
            its place; None: a text that asks is cut at its end.
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
        moments: Catalog | None = None,
        apart: bool = False,
        latest: int | None = None,
    ) -> None:
        self.latest = latest
        self.catalog, self.profiles, self.training = catalog, profiles, training
        self.separator = torch.tensor(separator, dtype=torch.long)
        self.max_tokens = max_tokens
        self.context: dict[str, Sequence[Tensor]] = {}
        if moments is not None:
            self.context[MOMENT] = _LatestTokens(moments, latest)
        self.context |= {
            name: [torch.tensor(ids, dtype=torch.long) for ids in of]
            for name, of in (context or {}).items()
        }
        self.prompt = torch.tensor(prompt, dtype=torch.long)
        self._apart = apart or bool(self.context)

    def compose_tokens(self, batch: Batch) -> Ragged:
        """Texts of a batch's queries, on the host, (Q texts)."""
        out = []
        for parts in self._collect_tokens(batch.at_host):
            whole = self._join(parts, self.separator)
            out.append(self._prepend(self.prompt, whole) if self._lacks_prompt(parts) else whole)
        return Ragged.from_sequences(out) if out else Ragged(torch.empty(0, dtype=torch.long), ())

    def compose_with_text(self, batch: Batch, text: Ragged) -> Ragged:
        """A text in place of profile and titles, for a batch of one query."""
        whole = self._join(self._collect_with_text(batch.at_host, text), self.separator)
        return Ragged.from_sequences([self._prepend(self.prompt, whole) if self._apart else whole])

    def number_pieces(self, batch: Batch, text: Ragged | None = None) -> Tensor:
        """Which piece each token of a query's text is of, as `PlainUserTexts.list_pieces` has them.

        Args:
            batch: Of one query.
            text: As in `compose_with_text`; None: `compose_tokens` makes the text.

        Returns:
            (L,), -1 for prompt and separators; a prompt that was tokenised with a profile or with
            what is looked for belongs to that.
        """
        if text is None:
            (parts,) = self._collect_tokens(batch.at_host)
            led = self._lacks_prompt(parts)
        else:
            parts, led = self._collect_with_text(batch.at_host, text), self._apart
        numbers = [torch.full_like(part, number) for number, part in enumerate(parts)]
        whole = self._join(numbers, torch.full_like(self.separator, -1))
        return self._prepend(torch.full_like(self.prompt, -1), whole) if led else whole

    def _collect_tokens(self, host: Batch) -> list[list[Tensor]]:
        """Tokens of the pieces of each query's text."""
        plan = host.plan
        if plan.epoch is None or self.training is None:
            titles = self.catalog.gather_tokens(plan.items).split()
        else:
            titles = self.training.gather_tokens(plan.items, plan.epoch).split()
        return collect_pieces(host, titles, self._gather_profiles(host.users), self.context)

    def _collect_with_text(self, host: Batch, text: Ragged) -> list[Tensor]:
        """Tokens of the pieces of the only query's text, where one is asked for."""
        asked = text.split()
        if self.latest is not None:
            asked = [tokens[-self.latest :] for tokens in asked]
        return [*(of[int(host.context[name])] for name, of in self.context.items()), *asked]

    def _lacks_prompt(self, parts: list[Tensor]) -> bool:
        """Whether the prompt is no part of the pieces.

        A profile that comes first has it already: the two were tokenised together.
        """
        return self._apart or not len(parts[0])

    def _prepend(self, prompt: Tensor, text: Tensor) -> Tensor:
        """A text behind a prompt, cut to the longest length."""
        return torch.cat([prompt, text])[: self.max_tokens] if len(prompt) else text

    def _gather_profiles(self, users: Tensor) -> list[Tensor]:
        """The profile of each row, empty for someone unknown (-1)."""
        none = torch.empty(0, dtype=torch.long)
        if self.profiles is None or not len(users):
            return [none] * len(users)
        known = self.profiles.gather_tokens(users.clamp(min=0)).split()
        return [t if u >= 0 else none for t, u in zip(known, users.tolist(), strict=True)]

    def _join(self, pieces: list[Tensor], separator: Tensor) -> Tensor:
        """Pieces with separators between them, cut to the longest length."""
        parts: list[Tensor] = []
        total = 0
        for piece in pieces:
            if not len(piece):
                continue
            if parts:
                parts.append(separator)
                total += len(separator)
            if total >= self.max_tokens:
                break
            parts.append(piece)
            total += len(piece)
        if not parts:
            return torch.empty(0, dtype=torch.long)
        return torch.cat(parts)[: self.max_tokens]
