"""TSDAE: a decoder is to write a text from the vector of what is left of it; reads no event.

Wang et al., TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised
Sentence Embedding Learning (EMNLP Findings 2021). There a copy of the encoder decodes; here a small
Transformer of its own does, over the encoder's token embeddings, so that families without
cross-attention can be pretrained as well. The decoder is no part of the encoder that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsys import lazy
from recsys.config.pretraining import PretrainingConfig
from recsys.config.schema import option


@dataclass
class Config(PretrainingConfig):
    """What is left of a text, and who writes the rest."""

    delete: float = option(0.6, "share of a text's words that are left out", above=0, below=1)
    decoder_layers: int = option(1, "layers of the decoder", least=1, most=12)


__getattr__, __dir__ = lazy.make_lazy_names(__name__, Task="recsys.pretrain.tasks.tsdae")
