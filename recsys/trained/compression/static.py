"""Static vectors of tokens: a text is the mean of them, whatever stands beside each.

Each token of the vocabulary passes the encoder alone, as in model2vec (Tulkens and van Dongen,
Minish 2024), and weighs less the more often texts have it: a / (a + p), as in Arora et al., A
Simple but Tough-to-Beat Baseline for Sentence Embeddings (ICLR 2017). Then the tokens of our own
texts are moved, by least squares with a pull to where they were, so that means of them are the
run's vectors.

They are a BERT of one layer that does nothing, which every library loads: its three norms divide by
nearly the same number whatever they read, and multiply by that again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recsys.encoders.encoder import Encoder
from recsys.encoders.special_tokens import SpecialTokens
from recsys.runtime.progress import track
from recsys.trained.compression.teacher import Teacher
from recsys.types import Ragged

COMMON = 1e-3
"""a: the share of all tokens at which a token weighs half."""

PULLS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the pull to where a token was, as shares of the mean weight of a text's tokens."""

MOST = 8192
"""Texts that are fitted; of more, a sample."""

_EPS = 1e8  # of the norms: variances are some 1e-3 and below, and vanish beside it
_BLOCK = 1024

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenVectors:
    """A vector for each token.

    Attributes:
        values: (V, D), in the teacher's basis; zero for special tokens.
        pull: The strength that a tenth of the texts chose.
    """

    values: Tensor
    pull: float


def fit_tokens(teacher: Teacher, seed: int) -> TokenVectors:
    """Vectors of all tokens, fitted to those of the items that training shows.

    Args:
        teacher: The run.
        seed: Draws which texts choose the strength of the pull, and which are fitted.
    """
    start = _encode_tokens(teacher)
    order = torch.randperm(len(teacher.rows), generator=torch.Generator().manual_seed(seed))
    rows = order[:MOST]
    tokens = teacher.gather_tokens(teacher.rows[rows])
    specials = teacher.encoder.specials
    shares = count_shares(tokens, len(start), len(specials.prefix) + len(specials.suffix))
    start *= _weigh_tokens(shares)[:, None]
    wanted = (teacher.targets[rows] @ teacher.basis.T).double().numpy()
    means = shares @ start
    start *= (means * wanted).sum() / max((means * means).sum(), 1e-12)
    few = len(rows) // 10
    pull = _choose_pull(shares, start, wanted, few) if few else 1.0
    return TokenVectors(torch.from_numpy(_fit(shares, start, wanted, pull)).float(), pull)


@torch.no_grad()
def _encode_tokens(teacher: Teacher) -> Floats:
    """(V, D) the vector of each token alone; zero for special ones."""
    embeddings = teacher.encoder.model.get_input_embeddings()  # type: ignore[operator]
    count = int(embeddings.weight.shape[0])
    out = torch.zeros(count, teacher.width)
    with track("static vectors", count, "tokens") as task:
        for ids in torch.split(torch.arange(count), _BLOCK):
            vectors = teacher.tower(Ragged(ids, (1,) * len(ids)))
            out[ids] = vectors @ teacher.basis.T
            task.advance(len(ids))
    out[_list_specials(teacher.encoder.specials)] = 0
    return out.double().numpy()


def _list_specials(specials: SpecialTokens) -> list[int]:
    return sorted({*specials.prefix, *specials.suffix, specials.pad})


def count_shares(tokens: Ragged, vocabulary: int, extra: int) -> sparse.csr_matrix:
    """(T, V) share of each token in its text, in which special ones count as tokens.

    Args:
        tokens: Raw token ids of T texts.
        vocabulary: V.
        extra: Special tokens of a text.
    """
    sizes = np.asarray(tokens.sizes, dtype=np.int64)
    texts = np.repeat(np.arange(len(sizes)), sizes)
    values = np.repeat(1.0 / np.maximum(sizes + extra, 1), sizes)
    return sparse.csr_matrix((values, (texts, tokens.values.numpy())), (len(sizes), vocabulary))


def _weigh_tokens(shares: sparse.csr_matrix) -> Floats:
    """(V,) weights: 1 for a token that no text has, less for common ones."""
    counts = np.asarray((shares > 0).sum(0)).ravel()
    weights: Floats = COMMON / (COMMON + counts / max(counts.sum(), 1))
    return weights


def _choose_pull(shares: sparse.csr_matrix, start: Floats, wanted: Floats, few: int) -> float:
    """The strength by which the vectors of the last `few` texts are met best without them."""
    errors = {}
    for pull in PULLS:
        fitted = _fit(shares[:-few], start, wanted[:-few], pull)
        errors[pull] = float(np.square(shares[-few:] @ fitted - wanted[-few:]).sum())
    return min(errors, key=errors.__getitem__)


def _fit(shares: sparse.csr_matrix, start: Floats, wanted: Floats, pull: float) -> Floats:
    """Ridge regression towards `start`, by the matrix of the texts, of which there are fewer."""
    gram = (shares @ shares.T).toarray()
    gram[np.diag_indices_from(gram)] += pull * gram.diagonal().mean()
    moved: Floats = shares.T @ np.linalg.solve(gram, wanted - shares @ start)
    return start + moved


def make_static_encoder(teacher: Teacher, values: Tensor) -> Encoder:
    """An encoder that gives the mean of the vectors of a text's tokens.

    Args:
        teacher: The run, whose tokenizer, prompts and lengths it has.
        values: (V, D).

    Returns:
        With vectors of D + 1 numbers: the last one has the mean of a vector's numbers be zero, as
        a norm makes it, and is to be left out.
    """
    from transformers import BertConfig, BertModel

    old = teacher.encoder
    table = torch.cat([values, -values.sum(1, keepdim=True)], dim=1)
    config = BertConfig(
        vocab_size=len(table),
        hidden_size=table.shape[1],
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=1,
        max_position_embeddings=old.max_length,
        type_vocab_size=1,
        layer_norm_eps=_EPS,
        pad_token_id=old.specials.pad,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(_EPS**0.5 if name.endswith("LayerNorm.weight") else 0.0)
        model.embeddings.word_embeddings.weight.copy_(table)
    encoder = Encoder(
        model, old.specials, "mean", old.max_length, old.chunk_tokens, skips=old.skips
    )
    return encoder.requires_grad_(False).eval()
