"""Vectors of queries for an architecture that makes none itself: an encoder's or a run's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.device import select_device
from recsys.assembly.stored_runs import assemble_run
from recsys.config.compose import RunConfig
from recsys.data.batches.user_texts import UserTexts
from recsys.data.training_events import TrainingQueries
from recsys.encoders.cache.common import hash_weights
from recsys.errors import ConfigError
from recsys.recommender.base import Recommender
from recsys.recommender.text_queries import compute_query_vectors
from recsys.recommender.trainable import require_trainable
from recsys.runtime.progress import track
from recsys.runtime.store import Store
from recsys.types import Batch

_SIZE = 256
"""Queries that are read at a time."""


class QueryVectorReader:
    """Makes vectors of queries by two towers.

    Args:
        reader: The two towers, in evaluation mode from now on.
        device: Where to compute.
        key: What the vectors depend on besides what is read, for the store; None: nothing is kept
            there.
    """

    def __init__(
        self, reader: Recommender, device: torch.device, key: Mapping[str, object] | None
    ) -> None:
        self._reader, self._device, self._key = reader.eval(), device, key

    def read(self, batch: Batch) -> Tensor:
        """(Q, D) fp32 vectors of a batch's queries, on the host."""
        if self._reader.device != self._device:
            self._reader.to(self._device)
        return compute_query_vectors(self._reader, batch.to(self._device))

    def load_vectors(self, queries: TrainingQueries) -> Tensor:
        """(N, D) fp32 vectors of training queries, computed now or mapped from the store."""

        def compute() -> Tensor:
            parts = []
            with track("reading training queries", len(queries), "queries", True) as task:
                for batch in queries.iter_batches(_SIZE):
                    parts.append(self.read(batch))
                    task.advance(len(parts[-1]))
            return torch.cat(parts)

        if self._key is None:
            return compute()

        def write(folder: Path) -> None:
            np.save(folder / "vectors.npy", compute().numpy())

        key = {"format": 1, **self._key, "queries": self._hash_queries(queries)}
        folder = Store().get_or_build("query_vectors", key, write, own=True)
        return torch.from_numpy(np.load(folder / "vectors.npy", mmap_mode="c"))

    def _hash_queries(self, queries: TrainingQueries) -> str:
        """SHA-256 of what is read of the queries: tokens of texts, or histories and their items."""
        digest = hashlib.sha256()
        texts = None if self._reader.needs_history else self._get_user_texts()
        for text in self._reader.parts.texts if self._reader.reads_plan else ():
            digest.update(text.encode("utf-8", errors="surrogatepass") + b"\0")
        for batch in queries.iter_batches(_SIZE):
            if texts is not None:
                tokens = texts.compose_tokens(batch)
                digest.update(np.array(tokens.sizes).tobytes() + tokens.values.numpy().tobytes())
            if not self._reader.reads_plan:
                continue
            items = torch.cat([batch.plan.items, torch.tensor([-1])])
            digest.update(items[batch.history].numpy().tobytes() + b"\0")
        return digest.hexdigest()

    def _get_user_texts(self) -> UserTexts:
        return require_trainable(self._reader).user_texts


def make_encoder_reader(reader: Recommender, run: RunConfig) -> QueryVectorReader:
    """The pretrained encoder of a run as a reader of queries.

    Args:
        reader: Two towers of it, without heads.
        run: The configuration.
    """
    encoder = require_trainable(reader).encoder
    options = {**asdict(run.encoder), "cache": None, "cache_gb": None}
    key = {"from": "encoder", "sha256": hash_weights(encoder, encoder.depth + 1), **options}
    return QueryVectorReader(reader, select_device(run) or torch.device("cpu"), key)


def open_run_reader(
    run: RunConfig, stored: StoredRun, assemble: Callable[[RunConfig], Assembly]
) -> QueryVectorReader:
    """A finished run of two towers as a reader of queries.

    Args:
        run: The configuration of what asks for them.
        stored: The run.
        assemble: Builds a configuration.

    Raises:
        ConfigError: It has no vector for each query, reads users in another way, or a file of it is
            missing.
    """
    asked, of = f"architecture.vectors={stored.folder}", stored.config.architecture
    if not (of.trains and of.reads_item_vectors and "table" in of.gives):
        raise ConfigError(
            f"{asked} has no vector for each query; give a run of two towers, under any tuning."
        )
    if of.reads_context:
        raise ConfigError(
            f"{asked} reads the context of a query ({', '.join(of.reads_context)}), which is not "
            "handed on to it; give a run without architecture.context."
        )
    if of.reads_user_texts != run.architecture.reads_user_texts:
        user = "text" if of.reads_user_texts else "history"
        raise ConfigError(f"{asked} was trained with another user; set architecture.user={user}.")
    if stored.config.data.max_history != run.data.max_history:
        raise ConfigError(
            f"{asked} has data.max_history={stored.config.data.max_history}, and this run "
            f"{run.data.max_history}; give both the same."
        )
    made = assemble_run(stored, assemble)
    return QueryVectorReader(
        made.recommender, select_device(run) or torch.device("cpu"), dict(stored.key)
    )
