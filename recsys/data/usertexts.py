"""A user as one text: what is known of the query, the profile, the titles, the latest first.

Composed from tokens that were made once, the same way in training, test and recommendation. What is
known of the query comes first, where no history is long enough to cut it away, and the latest title
before the others, so that what does not fit is the oldest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys.data.catalog import Catalog
from recsys.types import Batch, Ragged


class UserTexts:
    """Token ids of users, raw (without special tokens).

    Args:
        catalog: Tokens of the item texts.
        profiles: Tokens of the user texts by user row, or None where users have none.
        separator: Token ids between the pieces, such as those of ";".
        max_tokens: Longest text; a title that does not fit is cut.
        context: Token ids of what is said of each code of a query's situation, by name; none for
            a code that nothing is said of. None: the situation is not part of the text.
    """

    def __init__(
        self,
        catalog: Catalog,
        profiles: Catalog | None,
        separator: tuple[int, ...],
        max_tokens: int,
        context: Mapping[str, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        self.catalog, self.profiles = catalog, profiles
        self.separator = torch.tensor(separator, dtype=torch.long)
        self.max_tokens = max_tokens
        self.context = {
            name: [torch.tensor(ids, dtype=torch.long) for ids in of]
            for name, of in (context or {}).items()
        }

    def tokens(self, batch: Batch) -> Ragged:
        """Texts of a batch's queries, on the host, (Q texts)."""
        host = batch.at_host
        titles = self.catalog.tokens(host.plan.items).split()
        profiles = self._profiles(host.users)
        history = host.history.tolist()
        out = []
        queries = zip(host.query.tolist(), self._situations(host), strict=True)
        for (row, prefix), known in queries:
            latest = [titles[i] for i in reversed(history[row][:prefix]) if i >= 0]
            out.append(self._join([*known, profiles[row], *latest]))
        return Ragged.of(out) if out else Ragged(torch.empty(0, dtype=torch.long), ())

    def with_situation(self, batch: Batch, text: Ragged) -> Ragged:
        """A text in place of profile and titles, for a batch of one query."""
        (known,) = self._situations(batch.at_host)
        return Ragged.of([self._join([*known, *text.split()])])

    def _situations(self, batch: Batch) -> list[list[Tensor]]:
        """What is said of the situation of each query, from a batch on the host."""
        out: list[list[Tensor]] = [[] for _ in range(len(batch.query))]
        for name, said in self.context.items():
            for pieces, code in zip(out, batch.situation[name].tolist(), strict=True):
                pieces.append(said[code])
        return out

    def _profiles(self, users: Tensor) -> list[Tensor]:
        """The profile of each row, empty for someone unknown (-1)."""
        none = torch.empty(0, dtype=torch.long)
        if self.profiles is None or not len(users):
            return [none] * len(users)
        known = self.profiles.tokens(users.clamp(min=0)).split()
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
