"""What training draws its negatives from: hard ones are mined by tfidf or a finished run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.device import select_device
from recsys.assembly.stored_runs import DataIdentity, assemble_run, open_run
from recsys.config.compose import RunConfig
from recsys.config.schema import NegativeSpec, Sampling
from recsys.data.batches.examples import Examples
from recsys.data.batches.hard_negatives import (
    HardNegatives,
    HardNegativeSampler,
    list_excluded_items,
)
from recsys.data.batches.impressions import ImpressionSampler
from recsys.data.batches.negatives import (
    NegativeSampler,
    PoolSampler,
    SimilarSampler,
    compute_tie_order,
)
from recsys.data.columns.arrays import Ints
from recsys.errors import ConfigError, DataError
from recsys.evaluation.ranking import (
    count_block_queries,
    mask_scores,
    score_items,
    select_top,
)
from recsys.recommender.base import Recommender
from recsys.runs import provenance
from recsys.runtime.store import Store

RECIPE = "best items seen in training, without target and training positives, 3"
"""Part of the key; change it with the recipe."""


@dataclass(frozen=True)
class Miner:
    """Who ranks.

    Attributes:
        recommender: What scores.
        examples: Makes its queries: a model reads histories of the length it was trained with.
    """

    recommender: Recommender
    examples: Examples


def _make_tfidf_key(run: RunConfig) -> dict[str, object]:
    """That tfidf ranks for a run, and what it reads."""
    key: dict[str, object] = {"from": "tfidf", "history": run.data.max_history}
    if run.architecture.reads_user_texts:
        asked = run.architecture.reads_context if run.architecture.reads_context_texts else ()
        key |= {"user": "text", "context": list(asked)}
    return key


def _open_miner(run: RunConfig, data: DataIdentity) -> StoredRun:
    """The finished run that ranks for another.

    Raises:
        ConfigError: It cannot be used, or cannot score the whole catalog.
    """
    stored = open_run("data.hard_from", run.data.hard_from, data, "mine from a run")
    if not stored.ranks_catalog:
        raise ConfigError(
            f"data.hard_from={stored.folder} reads user and item together and cannot score the "
            "whole catalog for every training query; mine from a run of two towers, of a baseline, "
            "or from tfidf."
        )
    return stored


def mine(
    run: RunConfig,
    examples: Examples,
    fingerprint: str,
    tfidf: Callable[[], Recommender],
    assemble: Callable[[RunConfig], Assembly],
    device: torch.device | None = None,
) -> HardNegatives:
    """The hard negatives of the training queries, mined now or read from the store.

    Args:
        run: The options.
        examples: The queries.
        fingerprint: Of the tables.
        tfidf: Makes the baseline.
        assemble: Builds a configuration.
        device: Where is ranked; None: on the CPU.

    Raises:
        ConfigError: The run that is to rank cannot be used.
        DataError: A score is NaN, or the disk is full.
    """
    options, at = run.data, examples.list_target_events(run.data.queries)
    users, items = examples.get_train_pairs()
    data = DataIdentity.compute(run, examples.split, fingerprint)
    stored = None if options.hard_from == "tfidf" else _open_miner(run, data)
    parts = {
        "recipe": RECIPE,
        "data": fingerprint,
        "roles": data.roles,
        "top": options.hard_top,
        "skip": options.hard_skip,
        "queries": provenance.compute_digest(at, users, items),
        **(_make_tfidf_key(run) if stored is None else stored.key),
    }

    def load_miner() -> Miner:
        if stored is None:
            return Miner(tfidf(), examples)
        made = assemble_run(stored, assemble)
        return Miner(made.recommender, made.examples)

    def write(folder: Path) -> None:
        size = (len(at), options.hard_top - options.hard_skip)
        print(f"hard negatives: {size[0]} queries are ranked once", file=sys.stderr)
        out = np.lib.format.open_memmap(folder / "hard.npy", "w+", dtype=np.int32, shape=size)
        done = 0
        for block in _rank_blocks(load_miner(), examples, at, options.hard_top, device):
            out[done : done + len(block)] = block[:, options.hard_skip :]
            done += len(block)
        out.flush()

    folder = Store().get_or_build("hard", parts, write)
    return HardNegatives(at, np.load(folder / "hard.npy", mmap_mode="r"))


@torch.no_grad()
def iter_catalog_scores(
    miner: Miner, at: Ints, device: torch.device | None
) -> Iterator[tuple[Ints, Tensor]]:
    """Scores of the whole catalog for some queries at a time.

    Args:
        miner: Who scores.
        at: (N,) event numbers of the queries.
        device: Where; None: on the CPU.

    Yields:
        Event numbers (n,) and their scores (n, I).

    Raises:
        DataError: A score is NaN.
    """
    model, place = miner.recommender.eval(), device or torch.device("cpu")
    model.to(place)
    vectors = model.index_catalog()
    sizes = np.zeros(miner.examples.items, dtype=np.int64)
    rows = min(256, count_block_queries(miner.examples.items))
    for part in np.array_split(at, max(1, -(-len(at) // rows))):
        batch = miner.examples.make_batch(miner.examples.make_case_rows(part), sizes).to(place)
        queries, empty = (
            model.queries(batch, vectors[batch.plan.items]),
            batch.at_host.query[:, 1] == 0,
        )
        scores = score_items(model, queries, vectors, empty)
        if bool(scores.isnan().any()):
            raise DataError(f"{type(model).__module__} gives NaN scores; name another run.")
        yield part, scores
    model.to("cpu")


def _rank_blocks(
    miner: Miner, examples: Examples, at: Ints, top: int, device: torch.device | None
) -> Iterator[npt.NDArray[np.int32]]:
    """(n, top) best items of some queries at a time, -1 where there are no more.

    Of items with equal scores those come first that training shows more often.
    """
    place = device or torch.device("cpu")
    never = torch.ones(examples.items, dtype=torch.bool)
    never[torch.from_numpy(examples.get_pool("uniform"))] = False
    never = never.to(place)
    order = torch.from_numpy(compute_tie_order(examples.count_train_items())).to(place)
    for part, scores in iter_catalog_scores(miner, at, device):
        query, item = (torch.from_numpy(x).to(place) for x in list_excluded_items(examples, part))
        closed = never.expand_as(scores).index_put((query, item), never.new_tensor(True))
        chosen = select_top(mask_scores(scores, closed), top, order)
        yield chosen.cpu().numpy().astype(np.int32)


def get_negative_spec(run: RunConfig) -> NegativeSpec:
    """How the objective draws its negatives."""
    return NegativeSpec() if run.objective is None else run.objective.draws


def make_sampler(
    run: RunConfig,
    examples: Examples,
    fingerprint: str,
    tfidf: Callable[[], Recommender],
    assemble: Callable[[RunConfig], Assembly],
) -> NegativeSampler:
    """What draws the negatives of training queries, with the hard ones mined.

    Args:
        run: The options.
        examples: The queries.
        fingerprint: Of the tables.
        tfidf: Makes the baseline.
        assemble: Builds a configuration.

    Raises:
        ConfigError: The run that is to rank cannot be used.
        DataError: A score is NaN, or the disk is full.
    """
    if run.data.negatives == "impression":
        return ImpressionSampler(examples.split)
    drawn = _make_drawing_sampler(get_negative_spec(run).sampling, examples)
    if run.data.negatives != "hard":
        return drawn
    mined = mine(run, examples, fingerprint, tfidf, assemble, select_device(run))
    return HardNegativeSampler(drawn, mined, run.data.hard_share, drawn.windows)


def _make_drawing_sampler(sampling: Sampling, examples: Examples) -> PoolSampler | SimilarSampler:
    """What draws negatives among the items that training has seen."""
    windows = examples.split.windows
    if sampling == "similar":
        return SimilarSampler(examples.get_train_pairs()[1], examples.items, windows)
    return PoolSampler(examples.get_pool(sampling), windows)
