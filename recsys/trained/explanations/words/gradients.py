"""Integrated gradients of a score over the vectors of the tokens that it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.types import TokenScore

POINTS = (16, 32, 64, 128, 256, 512)
"""Points of the path; more are taken until the parts sum to the change of the score."""
ENOUGH = 0.005
"""Error of the sum, over the change of the score, that is small enough."""
TOKENS = 2048
"""Tokens that are read at a time."""


@dataclass(frozen=True)
class TokenParts:
    """What the tokens of a score add to it.

    Attributes:
        values: (L,) float64, 0 for special tokens.
        score: That of the tokens.
        baseline: That of tokens that say nothing, less all that the score has besides.
        rest: By name, what else it has.
        points: Of the path.
        error: By how much the values miss the change from tokens that say nothing, over that
            change.
    """

    values: Tensor
    score: float
    baseline: float
    rest: dict[str, float]
    points: int
    error: float


def integrate_tokens(score: TokenScore) -> TokenParts:
    """What each token adds to a score.

    Sundararajan et al., Axiomatic Attribution for Deep Networks (ICML 2017), over the vectors of
    the embedding, from those of a text in which all but special tokens are padding. Places and mask
    stay those of the text.

    Args:
        score: The score.

    Returns:
        Values that sum to the change of the score, but for what even the most points miss.

    Raises:
        ConfigError: Captum is missing, or the model makes no vector of each token in its order.
    """
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError:
        raise ConfigError(
            "tokens=true needs captum; pip install 'recsys[explain]', or leave tokens= out."
        ) from None

    def forward(ids: Tensor) -> Tensor:
        return score.score(ids, score.kinds)

    ids = score.ids[None]
    empty = torch.where(score.owner.to(ids.device) >= 0, score.pad, ids)
    with torch.no_grad():
        with _check_output(score.embedding, ids.shape):
            whole = float(forward(ids).double())
        ends = [
            _compute_embedded(score.embedding, how, ids, empty, score.kinds)
            for how in (score.score, *score.without.values())
        ]
    change = whole - ends[0]
    method = LayerIntegratedGradients(forward, score.embedding)
    values = torch.zeros(len(score.ids), dtype=torch.float64)
    points = 0
    if bool((score.owner >= 0).any()):
        for points in POINTS:
            parts: Tensor = method.attribute(
                ids,
                baselines=empty,
                n_steps=points,
                method="gausslegendre",
                internal_batch_size=max(1, TOKENS // len(score.ids)),
            )
            values = parts[0].detach().double().sum(-1).cpu()
            if abs(float(values.sum()) - change) <= ENOUGH * abs(change):
                break
    miss = abs(float(values.sum()) - change)
    return TokenParts(
        values,
        whole,
        ends[-1],
        {name: ends[n] - ends[n + 1] for n, name in enumerate(score.without)},
        points,
        miss / max(abs(change), 1e-6) if miss else 0.0,
    )


def _compute_embedded(
    embedding: nn.Module,
    how: Callable[[Tensor, Tensor], Tensor],
    ids: Tensor,
    others: Tensor,
    kinds: Tensor,
) -> float:
    """The score of ids (1, L) with the vectors of others (1, L).

    A model may tell places by the ids, as RoBERTa does, so that the others are not given to it.
    """
    with _replace_output(embedding, embedding(others)):
        return float(how(ids, kinds).double())


@contextmanager
def _check_output(module: nn.Module, shape: torch.Size) -> Iterator[None]:
    """Raises an error where a module makes no vector of each token of ids of a shape.

    Raises:
        ConfigError: It is so.
    """

    def check(_: nn.Module, __: object, output: Tensor) -> None:
        if output.shape[:-1] != shape:
            raise ConfigError(
                "tokens=true: this encoder does not keep its tokens in the order of the text "
                "(as XLNet does not), so that they cannot be told apart; leave tokens= out."
            )

    handle = module.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _replace_output(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Has a module give an output, whatever it is asked."""
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()
