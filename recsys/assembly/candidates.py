"""Candidate lists, so that a cross-encoder and a two-tower rank the same: floors' best items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

RECIPE = "popularity and tfidf in turn, equals by popularity, nothing had, pieces of words, 4"
"""Part of the key; change it with the recipe."""


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
    if size > examples.items or size < 2:
        raise ConfigError(
            f"evaluation.candidates is {size}; use 2 to {examples.items}, the size of the catalog."
        )
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
        windows = examples.split.windows
        closed = torch.zeros(len(part), examples.items, dtype=torch.bool)
        if windows is not None:
            closed = windows.make_mask(part, target.device)
        for pairs in (batch.basket_items, batch.seen if mask_history else None):
            if pairs is not None:
                closed[pairs[:, 0], pairs[:, 1]] = True
        proposed, empty = [], batch.query[:, 1] == 0
        for maker, items in zip(makers, vectors, strict=True):
            with torch.no_grad():
                scores = score_items(maker, maker.queries(batch, items[plan]), items, empty)
            proposed.append(select_top(mask_scores(scores, closed), 2 * size, order))
        yield _merge(torch.stack(proposed, dim=2).flatten(1), target, size)


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
