"""BM25 of a query's words against items, whose texts training queries extend by what was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig, GridValue, grid_option


@dataclass
class Config(BaselineConfig):
    """What an item's text is, and how its words count."""

    reads_user_texts: ClassVar[bool] = True
    scores_new_items: ClassVar[bool] = True

    extend: bool = option(
        True,
        "an item's text goes on with the texts of all training queries that ended in it, such as "
        "the dialogues in which it was recommended",
    )
    k1: GridValue = grid_option(
        1.2,
        "how much a word's further occurrences count; 0: only whether it is there",
        (0.6, 1.2, 2.5, 5.0),
        least=0,
    )
    b: GridValue = grid_option(
        0.1,
        "how much a long text is doubted; 0: not at all, 1: in full; 0.75 is usual where texts are "
        "not extended, and where they are a long one is that of an item that is often taken",
        (0.0, 0.1, 0.3, 0.75),
        least=0,
        most=1,
    )

    @property
    def reads_training_queries(self) -> bool:
        """Where they extend the items' texts."""
        return self.extend


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.queries.bm25")
