"""SimCSE: a text is to be told from others by itself under other dropout; reads no event.

Gao et al., SimCSE: Simple Contrastive Learning of Sentence Embeddings (EMNLP 2021), the
unsupervised way. Published results on search find no gain from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys import lazy
from recsys.config.pretraining import PretrainingConfig
from recsys.config.schema import option


@dataclass
class Config(PretrainingConfig):
    """How texts are told apart."""

    contrasts: ClassVar[bool] = True

    temperature: float = option(0.05, "that cosines are divided by", above=0)


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Task="recsys.pretrain.tasks.simcse")
