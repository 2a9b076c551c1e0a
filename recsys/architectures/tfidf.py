"""The second floor: cosine of TF-IDF vectors, the user as a mean of the history, or as a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig


@dataclass
class Config(BaselineConfig):
    """How words are counted, and a history read."""

    user: Literal["history", "text"] = option(
        "history",
        "the user from the history's texts, or from profile and titles as one text, as the floor "
        "beside a model that reads users so",
    )
    sublinear: bool = option(True, "1 + log of a word's count in place of the count")
    history: Literal["mean", "last", "recency"] = option(
        "mean", "the user as the plain mean, the latest item alone, or a mean that fades"
    )
    recency: float = option(0.3, "decay a step back, of history=recency", least=0)

    @property
    def scores_new_items(self) -> bool:
        """By the words that it has in common with the catalog of the fit."""
        return True

    @property
    def reads_user_texts(self) -> bool:
        """Whether a query is the user's text."""
        return self.user == "text"


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.tfidf")
