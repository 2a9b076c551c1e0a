"""Masked tokens: the encoder is to tell tokens of a text that it does not see; reads no event.

Devlin et al., BERT (NAACL 2019), section 3.1: of the chosen tokens 80 % are masked, 10 % replaced
by another and 10 % left. The model's own head tells them where its files have one; else a fresh one
over the embeddings, which the run says. The head is no part of the encoder that is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recsys import lazy
from recsys.config.pretraining import PretrainingConfig
from recsys.config.schema import option


@dataclass
class Config(PretrainingConfig):
    """What is hidden."""

    pools: ClassVar[bool] = False

    share: float = option(0.15, "share of a text's tokens that are to be told", above=0, below=1)


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Task="recsys.pretrain.tasks.mlm")
