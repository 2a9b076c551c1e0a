"""Queries of architectures whose vectors another model makes: of a free text, or of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.config.schema import ENCODER
from recsys.errors import ConfigError
from recsys.recommender.base import Recommender
from recsys.recommender.components import Components
from recsys.types import Batch, Ragged


@torch.no_grad()
def compute_query_vectors(reader: Recommender, batch: Batch) -> Tensor:
    """(Q, D) fp32 vectors of a batch's queries by two towers, on the host.

    Args:
        reader: The two towers.
        batch: The queries, where the towers are.
    """
    # A user from a text is made of tokens: no vector of the history is asked for.
    items = reader.index(batch.plan) if reader.reads_plan else torch.empty(0, 1)
    return reader.queries(batch, items).float().cpu()


def read_text_query(
    parts: Components,
    name: str,
    vectors: str,
    unused: str,
    batch: Batch,
    text: str,
    tokens: Ragged,
) -> Tensor:
    """The vector of a text like those of items, (1, D).

    Args:
        parts: What the architecture is made of.
        name: How it is called.
        vectors: Whose item vectors it has.
        unused: The setting by which they have no part in its scores, as in "rho=0"; else empty.
        batch: One query without history.
        text: The text.
        tokens: Its raw token ids.

    Raises:
        ConfigError: The encoder is not at hand, or vectors have no part in the scores.
    """
    if parts.read_text is None:
        raise ConfigError(
            f"{name} reads a text with architecture.vectors={ENCODER} alone; ask the run {vectors} "
            "for it, or give user= or history= instead."
        )
    if unused:
        raise ConfigError(
            f"{name} has {unused}, so that texts have no part in its scores; give user= or "
            "history= instead."
        )
    return parts.read_text(batch, text, tokens)
