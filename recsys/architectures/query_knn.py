"""Neighbours among training queries: what was taken where something alike was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import ENCODER, BaselineConfig, GridValue, grid_option

WORDS = "words"
"""`vectors` of what compares words, which loads no encoder."""


@dataclass
class Config(BaselineConfig):
    """What a query is compared by, and how its neighbours count."""

    user: Literal["text", "history"] = option(
        "text",
        "a query as its text, of profile and titles or of a dialogue so far, or as the mean of its "
        "history's items",
    )
    vectors: str = option(
        WORDS,
        f"what is compared: {WORDS}, by TF-IDF; the vectors of {ENCODER}, the pretrained one; or "
        "those of the folder of a finished run of two towers, which reads users as it was trained "
        "to",
    )
    neighbours: GridValue = grid_option(
        200,
        "most similar training queries that each query has",
        (50, 200, 1000),
        least=1,
        whole=True,
    )
    temperature: GridValue = grid_option(
        0.3,
        "of the softmax over their similarities: the smaller, the more the nearest counts",
        (0.03, 0.1, 0.3),
        above=0,
    )
    popularity: GridValue = grid_option(
        0.2,
        "share of a score that is the item's share of all training events; 0: none",
        (0.05, 0.2, 0.5),
        least=0,
        most=1,
    )

    @property
    def query_vectors_from(self) -> str | None:
        """The encoder, or the run that is named."""
        return None if self.vectors == WORDS else self.vectors

    @property
    def reads_user_texts(self) -> bool:
        """Whether a query is the user's text."""
        return self.user == "text"

    @property
    def reads_training_queries(self) -> bool:
        """They are what it knows."""
        return True

    @property
    def scores_new_items(self) -> bool:
        """No training query ended in it."""
        return False


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.queries.knn")
