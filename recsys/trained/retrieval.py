"""Two stages: another finished run proposes the items that the run at hand ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from recsys.errors import ConfigError, RecsysError
from recsys.trained.queries import Query, Retriever

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class FirstStage:
    """Asks another run for candidates, by the ids of items.

    Attributes:
        retriever: The other run.
        items: (I,) ids of the run at hand, by catalog row.
        find_items: Catalog rows of ids.
        size: How many candidates a query has.
        at: The moment.
        context: What the query is asked in; one that the other run knows nothing of is left out.
    """

    retriever: Retriever
    items: pl.Series
    find_items: Callable[[Sequence[str]], Tensor]
    size: int
    at: str
    context: Mapping[str, str]

    def check(self) -> None:
        """Raises where the catalogs differ.

        Raises:
            ConfigError: They do, or the other run cannot be read.
        """
        try:
            others = set(self.retriever.suggester.list_items())
        except RecsysError as error:
            raise self._refuse(str(error)) from None
        own = set(self.items)
        more, fewer = others - own, own - others
        if more or fewer:
            example = min(more or fewer)
            raise self._refuse(
                f"it ranks another catalog: {len(more):,} of its items are not here, and "
                f"{len(fewer):,} of those here are not there (such as '{example}'); give a run "
                "over the same items."
            )

    def propose(self, query: Query, left_out: Tensor) -> Tensor:
        """(C,) catalog rows for a query, the best first.

        Args:
            query: Who or what is asked for.
            left_out: Catalog rows that may not be proposed.

        Raises:
            ConfigError: The other run cannot answer the query.
        """
        ids = self.items.gather(np.unique(left_out.numpy())).to_list()
        try:
            found = self.retriever.suggester.propose(query, self.size, self.at, self.context, ids)
        except RecsysError as error:
            raise self._refuse(str(error)) from None
        return self.find_items(found)

    def _refuse(self, why: str) -> ConfigError:
        return ConfigError(f"retriever {self.retriever.name}: {why}")
