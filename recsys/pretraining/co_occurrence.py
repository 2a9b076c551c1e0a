"""Pairs: titles that one user had soon after one another come to lie close; reads events.

An in-batch softmax as in Yi et al., Sampling-Bias-Corrected Neural Modeling (RecSys 2019), over
pairs of items as in Barkan and Koenigstein, Item2vec (MLSP 2016), here between texts. Only events
of training make pairs, so that an item without one makes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys import lazy
from recsys.config.pretraining import PretrainingConfig
from recsys.config.schema import option


@dataclass
class Config(PretrainingConfig):
    """What makes a pair, and how pairs are told apart."""

    reads_events: ClassVar[bool] = True
    contrasts: ClassVar[bool] = True

    window: int = option(
        5, "most events of a user from one title of a pair to the other", least=1, most=100
    )
    temperature: float = option(0.05, "that cosines are divided by", above=0)
    logq: float = option(
        0.0,
        "strength, 0 to 1, of the correction for popular items standing in a batch more often; "
        "with it vectors say how popular an item is, too",
        least=0,
        most=1,
    )


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Task="recsys.pretrain.tasks.co_occurrence")
