"""A user as one text: the profile, then the titles of the history, the latest first.

Composed from tokens that were made once, the same way in training, test and recommendation. The
latest title comes first, so that what does not fit is the oldest.
"""

from __future__ import annotations

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
    """

    def __init__(
        self,
        catalog: Catalog,
        profiles: Catalog | None,
        separator: tuple[int, ...],
        max_tokens: int,
    ) -> None:
        self.catalog, self.profiles = catalog, profiles
        self.separator = torch.tensor(separator, dtype=torch.long)
        self.max_tokens = max_tokens

    def tokens(self, batch: Batch) -> Ragged:
        """Texts of a batch's queries, on the host, (Q texts)."""
        host = batch.at_host
        titles = self.catalog.tokens(host.plan.items).split()
        profiles = self._profiles(host.users)
        history = host.history.tolist()
        out = []
        for row, prefix in host.query.tolist():
            latest = [titles[i] for i in reversed(history[row][:prefix]) if i >= 0]
            out.append(self._join([profiles[row], *latest]))
        return Ragged.of(out) if out else Ragged(torch.empty(0, dtype=torch.long), ())

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
