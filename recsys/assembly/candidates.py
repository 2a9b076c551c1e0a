"""Candidate lists, so that a cross-encoder and a two-tower rank the same.

They are the best items of the floors, with the target; or those of a finished run, as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recsys.assembly.assembled import Assembly, StoredRun
from recsys.assembly.device import select_device
from recsys.assembly.negatives import Miner, iter_catalog_scores
from recsys.assembly.stored_runs import assemble_run
from recsys.config.compose import RunConfig
from recsys.data.batches.examples import Examples, Ints
from recsys.data.batches.negatives import compute_tie_order
from recsys.data.batches.rows import CandidateLists
from recsys.errors import ConfigError
from recsys.evaluation.ranking import (
    count_block_queries,
    mask_scores,
    score_items,
    select_top,
)
from recsys.recommender.base import Recommender
from recsys.runtime.store import Store
from recsys.types import Batch

RECIPE = "popularity and tfidf in turn, equals by popularity, nothing had, pieces of words, 4"
"""Part of the key; change it with the recipe."""
RETRIEVED = "best items of a run, equals by popularity, nothing had, 1"
"""The same of lists of a run."""


def make_candidate_lists(
    examples: Examples,
    at: Ints,
    makers: Sequence[Recommender],
    size: int,
    mask_history: bool,
    store: Store,
    key: Mapping[str, object],
) -> CandidateLists:
    """The best items of each maker in turn, without repeats; the target is put in if missing.

    Args:
        examples: Queries and cases.
        at: (N,) event numbers of the cases.
        makers: What proposes, such as popularity and tfidf.
        size: C, candidates of a case.
        mask_history: Leave out what the user has had (never the target).
        store: Where lists are kept.
        key: What they depend on besides the arguments: data, split.

    Returns:
        The lists, the target in a place that says nothing, since ties count as in random order.
        What cannot be had at the time of a case is in none, but for the target, nor what was chosen
        together with the target, nor what is to be left out; a list is shorter, with -1 at its end,
        where fewer items than `size` are left. Of items with equal scores, as all are for tfidf
        where no text has a word in common, those come first that training shows more often.

    Raises:
        ConfigError: The catalog is smaller than a list.
    """
    check_size(size, examples.items)
    parts = {
        **key,
        "recipe": RECIPE,
        "size": size,
        "mask": mask_history,
        "history": examples.max_history,
        "cases": np.asarray(at).tolist(),
        **({} if examples.split.windows is None else {"windows": "at the time of the case"}),
    }

    def write(folder: Path) -> None:
        blocks = list(_rank_blocks(examples, at, makers, size, mask_history))
        np.save(folder / "candidates.npy", np.concatenate([c for c, _ in blocks]))
        np.save(folder / "inserted.npy", np.concatenate([i for _, i in blocks]))

    folder = store.get_or_build("candidates", parts, write)
    candidates: Ints = np.load(folder / "candidates.npy")
    target = examples.make_case_rows(at).candidates
    return CandidateLists(
        at=at,
        candidates=candidates,
        labels=(candidates == target).astype(np.float32),
        inserted=np.load(folder / "inserted.npy"),
    )


def _rank_blocks(
    examples: Examples, at: Ints, makers: Sequence[Recommender], size: int, mask_history: bool
) -> Iterable[tuple[Ints, np.ndarray[tuple[int], np.dtype[np.bool_]]]]:
    """Candidates (n, C) and whether the target was put in (n,), for some cases at a time."""
    sizes = np.zeros(examples.items, dtype=np.int64)
    order = torch.from_numpy(compute_tie_order(examples.count_train_items()))
    vectors = [maker.eval().index_catalog() for maker in makers]
    rows = min(256, count_block_queries(examples.items))
    for part in np.array_split(at, -(-len(at) // rows)):
        batch = examples.make_batch(examples.make_case_rows(part), sizes, with_seen=True)
        plan = batch.plan.items
        target = plan[batch.candidates[:, 0]]
        closed = _mask_batch(examples, batch, part, mask_history)
        proposed, empty = [], batch.query[:, 1] == 0
        for maker, items in zip(makers, vectors, strict=True):
            with torch.no_grad():
                scores = score_items(maker, maker.queries(batch, items[plan]), items, empty)
            proposed.append(select_top(mask_scores(scores, closed), 2 * size, order))
        yield _merge(torch.stack(proposed, dim=2).flatten(1), target, size)


def _mask_batch(
    examples: Examples, batch: Batch, at: Ints, mask_history: bool, target: Tensor | None = None
) -> Tensor:
    """(n, I) what is in no list of some cases.

    Args:
        examples: The cases.
        batch: Them.
        at: (n,) their event numbers.
        mask_history: Also what the user has had.
        target: (n,) catalog rows that can always be had; None: as all others.
    """
    windows = examples.split.windows
    closed = torch.zeros(len(at), examples.items, dtype=torch.bool)
    if windows is not None:
        closed = windows.make_mask(at, closed.device)
        if target is not None:
            closed.scatter_(1, target[:, None], False)
    for pairs in (batch.basket_items, batch.seen if mask_history else None):
        if pairs is not None:
            closed[pairs[:, 0], pairs[:, 1]] = True
    return closed


def check_size(size: int, items: int) -> None:
    """Refuses lists that the catalog cannot fill.

    Args:
        size: Candidates of a list.
        items: I, of the catalog.

    Raises:
        ConfigError: It is smaller.
    """
    if size > items or size < 2:
        raise ConfigError(
            f"evaluation.candidates is {size}; use 2 to {items}, the size of the catalog."
        )


@dataclass(frozen=True)
class Retriever:
    """The finished run whose best items are ranked.

    Attributes:
        key: What whatever is computed with it depends on.
        load: Its model, with queries as it was trained to read them.
        device: Where it computes; None: on the CPU.
    """

    key: Mapping[str, object]
    load: Callable[[], Miner]
    device: torch.device | None


def make_retriever(
    run: RunConfig, stored: StoredRun, build: Callable[[RunConfig], Assembly]
) -> Retriever:
    """The run that proposes candidates, loaded once it is asked.

    Args:
        run: The configuration of the run that ranks them.
        stored: The run that proposes.
        build: Assembles a configuration.
    """

    @cache  # validation and test ask it one after the other
    def load() -> Miner:
        made = assemble_run(stored, build)
        return Miner(made.recommender, made.examples)

    return Retriever(stored.key, load, select_device(run))


def make_retrieved_lists(
    examples: Examples,
    at: Ints,
    retriever: Retriever,
    size: int,
    mask_history: bool,
    store: Store,
    key: Mapping[str, object],
) -> CandidateLists:
    """The best items of a finished run, in its order; a target that is not among them is missed.

    They are what that run's own ranking of the catalog begins with: nothing that cannot be had at
    the time of a case but the target, nor what was chosen together with it, nor what is to be left
    out. Equal scores go by how often training shows the items.

    Args:
        examples: Queries and cases.
        at: (N,) event numbers of the cases.
        retriever: What proposes.
        size: C, candidates of a case.
        mask_history: Leave out what the user has had.
        store: Where lists are kept.
        key: What they depend on besides the arguments: data, split.

    Raises:
        ConfigError: The catalog is smaller than a list.
        DataError: A score is NaN.
    """
    check_size(size, examples.items)
    parts = {
        **key,
        **retriever.key,
        "recipe": RETRIEVED,
        "size": size,
        "mask": mask_history,
        "cases": np.asarray(at).tolist(),
    }

    def write(folder: Path) -> None:
        print(f"candidates: {len(at)} cases are ranked once by the run", file=sys.stderr)
        blocks = list(_retrieve_blocks(examples, at, retriever, size, mask_history))
        np.save(folder / "candidates.npy", np.concatenate(blocks))

    folder = store.get_or_build("candidates", parts, write)
    candidates: Ints = np.load(folder / "candidates.npy")
    target = examples.make_case_rows(at).candidates[:, 0]
    hits = candidates == target[:, None]
    return CandidateLists(
        at=at,
        candidates=candidates,
        labels=hits.astype(np.float32),
        inserted=np.zeros(len(at), dtype=np.bool_),
        missed=np.where(hits.any(1), -1, target),
    )


def _retrieve_blocks(
    examples: Examples, at: Ints, retriever: Retriever, size: int, mask_history: bool
) -> Iterable[Ints]:
    """(n, size) best items of some cases at a time, best first, -1 where there are no more."""
    sizes = np.zeros(examples.items, dtype=np.int64)
    order = torch.from_numpy(compute_tie_order(examples.count_train_items()))
    for part, scores in iter_catalog_scores(retriever.load(), at, retriever.device):
        batch = examples.make_batch(examples.make_case_rows(part), sizes, with_seen=True)
        target = batch.plan.items[batch.candidates[:, 0]]
        closed = _mask_batch(examples, batch, part, mask_history, target)
        yield select_top(mask_scores(scores.cpu(), closed), size, order).numpy()


def _merge(
    proposed: Tensor, target: Tensor, size: int
) -> tuple[Ints, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """First `size` different rows of each (n, P) proposal; a missing target replaces the last.

    Proposals of -1 are none: a row with too few others ends with -1.
    """
    out = np.full((len(proposed), size), -1, dtype=np.int64)
    inserted = np.zeros(len(proposed), dtype=np.bool_)
    for i, (row, wanted) in enumerate(zip(proposed.tolist(), target.tolist(), strict=True)):
        chosen = [item for item in dict.fromkeys(row) if item >= 0][:size]
        if wanted not in chosen:
            chosen[size - 1 :] = [wanted]  # in place of the last, or behind a shorter list
            inserted[i] = True
        out[i, : len(chosen)] = chosen
    return out, inserted
