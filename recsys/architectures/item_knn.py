"""Items that the same users had: item-item cosine of the training matrix, no text, no training."""

from __future__ import annotations

from dataclasses import dataclass

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig


@dataclass
class Config(BaselineConfig):
    """How items are compared, and a history with them."""

    neighbours: int = option(500, "similar items that each item keeps", least=1)
    shrink: float = option(20.0, "added to the product of both norms: doubts rare items", least=0)
    binary: bool = option(True, "a repeated event counts once")
    recency: float = option(0.3, "decay a step back in the history; 0: none", least=0)


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.item_knn")
