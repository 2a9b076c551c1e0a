"""Mines hard negatives: what tfidf or a finished run ranks high for each training query."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.compose import RunConfig, read_config
from recsys.data.batches.examples import Examples
from recsys.data.batches.hard_negatives import HardNegatives, list_excluded_items
from recsys.data.batches.negatives import compute_tie_order
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
from recsys.runs.result_file import read_result
from recsys.runtime.files import BEST, CONFIG
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


def _make_miner_key(run: RunConfig, fingerprint: str, roles: str) -> dict[str, object]:
    """Who ranks for a run, as a key: tfidf, or a finished run by its contents.

    Args:
        run: The options of the run that is to be trained.
        fingerprint: Of its tables.
        roles: Checksum of its split.

    Raises:
        ConfigError: The finished run has other data, another split or other positive events, or
            cannot score the whole catalog.
    """
    if run.data.hard_from == "tfidf":
        who: dict[str, object] = {"from": "tfidf", "history": run.data.max_history}
        if run.architecture.reads_user_texts:
            asked = run.architecture.reads_context if run.architecture.reads_context_texts else ()
            who |= {"user": "text", "context": list(asked)}
        return who
    folder = Path(run.data.hard_from)
    asked, found = f"data.hard_from={folder}", read_config(folder / CONFIG)
    try:
        result = read_result(folder)
        data = (str(result["data"]["fingerprint"]), str(result["data"]["roles_sha256"]))
        encoder = str(result.get("encoder", {}).get("sha256"))
    except FileNotFoundError:
        raise ConfigError(f"{asked}: the run is not complete, result.json is missing.") from None
    except (DataError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{asked}: result.json is damaged; run fit again.") from None
    if data[0] != fingerprint:
        raise ConfigError(
            f"{asked} was trained on other data (items, users or interactions differ); mine from a "
            "run with the same data options."
        )
    if data[1] != roles or found.data.positive_from != run.data.positive_from:
        raise ConfigError(
            f"{asked} splits the events in another way or likes other ones, so that it may have "
            "learned from this run's test part; give both the same data.split and "
            "data.positive_from."
        )
    if found.architecture.trains and not found.architecture.reads_item_vectors:
        raise ConfigError(
            f"{asked} reads user and item together and cannot score the whole catalog for every "
            "training query; mine from a run of two towers, of a baseline, or from tfidf."
        )
    weights = folder / BEST
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    if found.architecture.trains:
        try:
            digest.update(weights.read_bytes())
        except OSError:
            raise ConfigError(f"{asked}: {weights.name} is missing; run fit again.") from None
    return {"from": "run", "sha256": digest.hexdigest(), "encoder": encoder}


def drop_hard_negatives(run: RunConfig) -> RunConfig:
    """A stored run without hard negatives of its own: it is to rank, not to train."""
    if run.data.negatives != "hard":
        return run
    usual: dict[str, Any] = {
        f.name: f.default for f in fields(run.data) if f.name.startswith("hard_")
    }
    return replace(run, data=replace(run.data, negatives="drawn", **usual))


def mine(
    run: RunConfig,
    examples: Examples,
    fingerprint: str,
    tfidf: Callable[[], Recommender],
    assemble: Callable[[RunConfig], Miner],
    device: torch.device | None = None,
) -> HardNegatives:
    """The hard negatives of the training queries, mined now or read from the store.

    Args:
        run: The options.
        examples: The queries.
        fingerprint: Of the tables.
        tfidf: Makes the baseline.
        assemble: Builds a stored run, its weights not yet restored.
        device: Where is ranked; None: on the CPU.

    Raises:
        ConfigError: The run that is to rank cannot be used.
        DataError: A score is NaN, or the disk is full.
    """
    options, at = run.data, examples.list_target_events(run.data.queries)
    users, items = examples.get_train_pairs()
    roles = str(provenance.compute_data_digests(examples.split, {})["roles_sha256"])
    parts = {
        "recipe": RECIPE,
        "data": fingerprint,
        "roles": roles,
        "top": options.hard_top,
        "skip": options.hard_skip,
        "queries": provenance.compute_digest(at, users, items),
        **_make_miner_key(run, fingerprint, roles),
    }

    def load_miner() -> Miner:
        if options.hard_from == "tfidf":
            return Miner(tfidf(), examples)
        folder = Path(options.hard_from)
        stored = drop_hard_negatives(read_config(folder / CONFIG))
        made = assemble(stored)
        if stored.architecture.trains:
            from recsys.recommender.trainable import require_trainable

            require_trainable(made.recommender).load_trained(folder / BEST)
        return made

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
def _rank_blocks(
    miner: Miner, examples: Examples, at: Ints, top: int, device: torch.device | None
) -> Iterator[npt.NDArray[np.int32]]:
    """(n, top) best items of some queries at a time, -1 where there are no more.

    Of items with equal scores those come first that training shows more often.
    """
    model, place = miner.recommender.eval(), device or torch.device("cpu")
    model.to(place)
    vectors = model.index_catalog()
    sizes = np.zeros(examples.items, dtype=np.int64)
    never = torch.ones(examples.items, dtype=torch.bool)
    never[torch.from_numpy(examples.get_pool("uniform"))] = False
    never = never.to(place)
    order = torch.from_numpy(compute_tie_order(examples.count_train_items())).to(place)
    rows = min(256, count_block_queries(examples.items))
    for part in np.array_split(at, max(1, -(-len(at) // rows))):
        batch = miner.examples.make_batch(miner.examples.make_case_rows(part), sizes).to(place)
        queries, empty = (
            model.queries(batch, vectors[batch.plan.items]),
            batch.at_host.query[:, 1] == 0,
        )
        scores = score_items(model, queries, vectors, empty)
        if bool(scores.isnan().any()):
            raise DataError(f"{type(model).__module__} gives NaN scores; mine from another run.")
        query, item = (torch.from_numpy(x).to(place) for x in list_excluded_items(examples, part))
        closed = never.expand_as(scores).index_put((query, item), never.new_tensor(True))
        chosen = select_top(mask_scores(scores, closed), top, order)
        yield chosen.cpu().numpy().astype(np.int32)
    model.to("cpu")
