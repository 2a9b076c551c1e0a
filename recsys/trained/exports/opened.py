"""A finished run with its model and the vectors of its items, about to be written for others."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from recsys.assembly.assembled import Assembly
from recsys.config.compose import get_choice_name
from recsys.config.groups import EncoderOptions
from recsys.encoders.peft.injection import merge_method
from recsys.encoders.text_tower import TextTower, TokenTowers
from recsys.errors import ConfigError
from recsys.recommender.components import TextComponents
from recsys.trained.exports.source import ExportSource
from recsys.types import VectorScore

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class OpenedRun:
    """A run whose model is built.

    Attributes:
        run: The run.
        made: Its data and its model, with all that was learned.
        vectors: (I, D) of the items, by catalog row.
        score: How a score is made of them.
        catalog: (I, ...) all that the model has of the items.
    """

    run: ExportSource
    made: Assembly
    vectors: Vectors
    score: VectorScore
    catalog: Tensor

    @property
    def ids(self) -> pl.Series:
        """(I,) ids of the items, as text."""
        return self.made.tables.items["item"].cast(pl.String)

    @property
    def texts(self) -> Sequence[str]:
        """Text of each item."""
        return self.made.recommender.parts.texts

    @property
    def encoding(self) -> TextComponents:
        """How texts are read.

        Raises:
            ConfigError: They are not.
        """
        if self.made.encoding is None:
            raise ConfigError(f"{self.run.folder}: the run reads no texts.")
        return self.made.encoding

    def make_towers(self) -> tuple[TextTower, TextTower | None, str]:
        """What makes vectors of items' texts and of free texts, and why there is none of these.

        Raises:
            ConfigError: An item's vector is not of its text alone.
        """
        recommender = self.made.recommender
        items = recommender.make_item_tower().eval()
        try:
            return items, recommender.make_query_tower().eval(), ""
        except ConfigError as error:
            return items, None, str(error)

    def list_remarks(self) -> list[str]:
        """What a score has besides the product of vectors, a sentence each."""
        notes = []
        stored = self.run.config.architecture.stores_vectors_as
        if stored != "fp32":
            notes.append(
                f"the run ranks vectors that are stored as {stored}; what is written here is in "
                "full precision"
            )
        if self.run.config.encoder.dtype != "fp32":
            notes.append(
                "the run reads texts with weights in bf16, and what is written here is in fp32"
            )
        if self.score.added is not None:
            notes.append("the run adds what is popular to the score of an item")
        if not self.score.complete:
            notes.append(
                "the run adds an MLP on both vectors to the score (architecture.score=mlp): a "
                "ranking by the product alone leaves it out"
            )
        return notes


def open_for_export(run: ExportSource) -> OpenedRun:
    """Reads a run's data, builds its model and encodes its items.

    Args:
        run: With item vectors.

    Raises:
        ConfigError: The data has changed so that the run no longer fits it, or a file is missing.
    """
    made = run.assemble()
    recommender = made.recommender.cpu().eval()
    recommender.keep_precision()  # other systems round vectors by rules of their own
    items = recommender.index_catalog()
    vectors = recommender.select_item_vectors(items).float().contiguous().numpy()
    return OpenedRun(run, made, vectors, recommender.describe_score(items), items)


def open_for_tokens(run: ExportSource) -> tuple[OpenedRun, TokenTowers]:
    """Reads a run's data and builds its model, which compares token vectors.

    Args:
        run: Of late interaction.

    Returns:
        The run, whose items have vectors of width 0, and what makes those of tokens.

    Raises:
        ConfigError: The data has changed so that the run no longer fits it, or a file is missing.
    """
    made = run.assemble()
    recommender = made.recommender.cpu().eval()
    towers, items = recommender.make_token_towers(), recommender.index_catalog()
    score = VectorScore(towers.scale, None, complete=True, unit=True)
    none = np.empty((len(items), 0), dtype=np.float32)
    return OpenedRun(run, made, none, score, items), towers


def fold_tuning(
    opened: OpenedRun,
    towers: Sequence[TextTower],
    required: bool = True,
    instead: str = "format=onnx, which holds any computation, or format=vectors",
) -> None:
    """Folds what a tuning method added into the weights of encoders, in place and in fp32.

    Args:
        opened: The run; nothing is to be encoded with it any more.
        towers: Whose encoders; the second may have an encoder of its own.
        required: Whether what cannot be folded is an error, and does not stay as it is.
        instead: What holds such a run, for that error.

    Raises:
        ConfigError: It cannot be folded.
    """
    tuned = opened.encoding.tuned
    opened.encoding.encoder.restore_precision()
    added = [name for name in tuned.added if not name.startswith("pooling.")]
    if required and added and tuned.merge is None:
        raise ConfigError(
            f"tuning={get_choice_name(opened.run.config.tuning)} adds modules that cannot be folded"
            f" into the weights, so that no folder of transformers can hold them; use {instead}."
        )
    for tower in towers:
        tower.encoder.restore_precision()
        if tower.encoder is not opened.encoding.encoder:
            # A second one shares what does not train, into which the first is about to be folded.
            tower.encoder = copy.deepcopy(tower.encoder)
            if tuned.merge is not None:
                merge_method(tower.encoder)
    if tuned.merge is not None:
        tuned.merge()


def choose_tolerance(encoder: EncoderOptions) -> float:
    """Largest difference of a number of what was written from the run's own, at a length of 1.

    Args:
        encoder: Of the run; what is written for others is in fp32.
    """
    if encoder.dtype != "fp32":
        return 3e-2
    # States that were kept in half precision are not exactly what the encoder gives.
    return 1e-4 if encoder.cache_dtype == "fp32" else 1e-2


def compute_largest_error(own: Vectors, other: Vectors) -> float:
    """The largest difference of two vectors' numbers, as a share of the longest vector's length."""
    length = max(float(np.linalg.norm(own, axis=1).max(initial=0.0)), 1e-12)
    return float(np.abs(own - other).max(initial=0.0)) / length


def make_history_queries(opened: OpenedRun, vectors: Vectors, limit: int = 500) -> Vectors:
    """(Q, D) plain means of the item vectors of users' last items: queries as an index sees them.

    Args:
        opened: The run.
        vectors: (I, D) item vectors.
        limit: How many users at the most, evenly spaced.
    """
    made = opened.made
    count, longest = len(made.tables.users), opened.run.config.data.max_history
    users = np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int))
    histories = [made.examples.list_history(int(user))[-longest:] for user in users]
    queries = np.stack([vectors[rows].mean(0) for rows in histories if len(rows)])
    if opened.score.unit:
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(queries, dtype=np.float32)


def compute_overlap(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    """Mean share of the rows of `one` (Q, k) that are also in the same row of `other` (Q, k)."""
    shares = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(one, other, strict=True)]
    return float(np.mean(shares))


def select_best(queries: Vectors, vectors: Vectors, k: int) -> NDArray[np.int64]:
    """(Q, k) rows of the largest products, a block of queries at a time."""
    k = min(k, len(vectors))
    best = [
        np.argpartition(-(block @ vectors.T), k - 1, axis=1)[:, :k]
        for block in np.array_split(queries, max(1, len(queries) // 64))
    ]
    return np.concatenate(best)
