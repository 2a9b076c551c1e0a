"""EASE: a linear item-item autoencoder in closed form, no text, no training steps."""

from __future__ import annotations

from dataclasses import dataclass

from recsys import lazy
from recsys.config.compose import option
from recsys.config.schema import BaselineConfig


@dataclass
class Config(BaselineConfig):
    """The penalty, and what a catalog may cost."""

    l2: float = option(300.0, "strength of the L2 penalty", above=0)
    limit_gb: float = option(
        4.0, "largest size of the dense matrix of all items seen in training", least=0
    )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Model="recsys.models.ease")
