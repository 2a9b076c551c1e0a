"""What a list says beside each item: what of the history speaks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.recommender.base import Recommender
from recsys.trained.explanations.attribution import QueryScorer, find_disliked, leave_one_out
from recsys.trained.explanations.parts import (
    make_history_parts,
    write_because,
    write_witnesses,
)
from recsys.types import Batch


@torch.no_grad()
def list_reasons(
    recommender: Recommender,
    ids: Sequence[str],
    batch: Batch,
    rows: Tensor,
    asked: Tensor | None,
    catalog: Tensor | None,
    always: bool,
) -> list[str]:
    """A line for each of some items, such as `because you had "Alien" (41%)`.

    Args:
        recommender: The model.
        ids: (I,) ids of the items, by catalog row.
        batch: One query, as `Examples.make_serving_batch` makes it.
        rows: (N,) catalog rows of the items.
        asked: (1, ...) what a text asks for in place of a history, or None.
        catalog: (I, ...) what `index_catalog` gave; None: representations are made.
        always: Whether, where a score is no sum over the history, each item of it is left out
            once, for all lines together.

    Returns:
        The lines; empty where nothing of a history speaks for the item, or that is not known.
    """
    recommender.eval()
    bare = not len(batch.plan.items) and recommender.ranker.needs_history
    if recommender.has_witnesses and (asked is not None or not bare):
        query = asked
        if query is None:
            query = recommender.queries(batch, recommender.index(batch.plan))
        others = recommender.count_witnesses(query, rows)
        return [write_witnesses(each, recommender.parts.texts) for each in others]
    if asked is not None or not len(rows):
        return [""] * len(rows)
    if bare:
        return [write_because((), ("popularity",))] * len(rows)
    split = None
    if recommender.ranker is recommender:
        split = recommender.split_scores(batch, rows, catalog)
    rest: Sequence[str] = ()
    if split is not None:
        history, rest = split.history, tuple(split.rest)
    elif always:
        items = None if catalog is None else catalog[rows]
        scorer = QueryScorer(recommender, batch, rows, None, items)
        history = leave_one_out(scorer, scorer.score()).history
    else:
        return [""] * len(rows)
    own, texts = batch.plan.items[: history.shape[1]].tolist(), recommender.parts.texts
    named = [ids[row] for row in own], [texts[row] for row in own]
    signs = find_disliked(batch, len(own))
    return [
        write_because(make_history_parts(*named, values, signs), rest)
        for values in history.tolist()
    ]
