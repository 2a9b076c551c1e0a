"""What was mentioned before, the latest first, then what is popular: for items that repeat."""

from __future__ import annotations

from dataclasses import dataclass

from recsys import lazy
from recsys.config.schema import BaselineConfig


@dataclass
class Config(BaselineConfig):
    """It has no options. What is masked cannot be copied: see evaluation.mask_history, repeated."""


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.queries.copying")
