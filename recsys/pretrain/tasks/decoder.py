"""A small Transformer that writes a text from one vector (Vaswani et al. 2017; TSDAE 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.pretrain.tasks.heads import TiedOutput
from recsys.recommender.flops import FlopCounter


class DecoderLayer(nn.Module):
    """What came before, then the vector, then a map of each position; norms come first.

    Attention over a single key gives that key's value, whatever the query: the decoder's look at
    the one vector is a linear map of it.

    Args:
        width: D, of states.
        vector: V, of the vector.
        heads: Of the attention.
    """

    def __init__(self, width: int, vector: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.look = nn.Linear(vector, width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """(N, L, D) states and (N, V) vectors -> (N, L, D)."""
        n, length, width = x.shape
        parts = self.attend(self.norms[0](x)).view(n, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.join(seen.transpose(1, 2).reshape(n, length, width))
        x = x + self.look(vectors)[:, None]
        out: Tensor = x + self.outer(F.gelu(self.inner(self.norms[1](x))))
        return out


class VectorDecoder(nn.Module):
    """Scores of each next token of texts, from their vectors and the tokens before it.

    Args:
        width: D, of states.
        vector: V, of the vectors.
        heads: Of each layer's attention.
        layers: How many.
        longest: Most tokens of a text, with the one that begins it.
        table: (V, E) the encoder's embeddings, for their sizes alone.
    """

    def __init__(
        self, width: int, vector: int, heads: int, layers: int, longest: int, table: Tensor
    ) -> None:
        super().__init__()
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.widen = nn.Linear(table.shape[1], width)
        self.start, self.end = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(DecoderLayer(width, vector, heads) for _ in range(layers))
        self.narrow = nn.Linear(width, table.shape[1])
        self.output = TiedOutput(table.shape[0])

    def forward(
        self, vectors: Tensor, ids: Tensor, kept: Tensor, table: Tensor, work: FlopCounter
    ) -> Tensor:
        """Scores (M, V) of what follows each kept token.

        Args:
            vectors: (N, V) of the texts.
            ids: (N, L) tokens that are known before each next one, right-padded.
            kept: (N, L) true for real tokens, M of them.
            table: (V, E) the encoder's embeddings.
            work: Counts the attention, which is no linear map.
        """
        place = torch.arange(ids.shape[1], device=ids.device)
        x = self.start(self.widen(F.embedding(ids, table)) + self.places(place))
        if work.counting:
            passes = 3 if torch.is_grad_enabled() else 1
            pairs = ids.shape[0] * ids.shape[1] ** 2
            work.flops += 4.0 * passes * len(self.layers) * pairs * x.shape[-1]
        for layer in self.layers:
            x = layer(x, vectors.to(x.dtype))
        scores: Tensor = self.output(self.narrow(self.end(x[kept])), table, work)
        return scores
