"""Measures beyond accuracy of a run's test cases, from the best items that its rows keep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from torch import Tensor

from recsys.data.columns.words import split_words
from recsys.data.splits.history import CaseHistories
from recsys.data.splits.split import Split
from recsys.data.tables import Tables
from recsys.metrics import beyond_accuracy

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 4096
"""Cases whose histories and categories are held at a time."""


def take_top(rows: list[dict[str, Tensor]]) -> tuple[Ints, Ints] | None:
    """Takes the best items out of the evaluator's rows.

    Args:
        rows: As `Evaluator.rows`; their column `top` is removed.

    Returns:
        Case numbers (Q,), sorted, and catalog rows (Q, k); None where no row keeps any.
    """
    if not rows or "top" not in rows[0]:
        return None
    top = np.concatenate([row.pop("top").numpy() for row in rows])
    case = np.concatenate([row["case"].numpy() for row in rows])
    order = np.argsort(case)
    return case[order], top[order]


def compute_measures(
    case: Ints,
    top: Ints,
    ks: Sequence[int],
    counts: Ints,
    tables: Tables,
    split: Split,
    category: str | None,
) -> dict[str, object]:
    """All measures at each cut-off.

    Diversity takes TF-IDF vectors of the item texts, which are the same for every method.

    Args:
        case: (Q,) event numbers of the cases.
        top: (Q, K) catalog rows, best first, -1 for none.
        ks: Cut-offs, none above K.
        counts: (I,) how often training shows each item as a positive.
        tables: The data set.
        split: Its events.
        category: Item column for calibration, or None.

    Returns:
        `coverage@k`, `gini@k`, `novelty@k` (bits), `popularity@k` (training events of a recommended
        item), `popularity_lift@k` (that over the same of histories, both over cases with a
        history), `diversity@k`, with a category `calibration@k` (nats), and `seconds`.
    """
    began = time.monotonic()
    past, events = CaseHistories(split), counts.astype(np.float64)
    vectors = compute_text_vectors(tables.items["text"].to_list())
    liked = np.concatenate(
        [
            beyond_accuracy.compute_ragged_means(events, *past.list_items(part), len(part))
            for part in _split_blocks(case)
        ]
    )
    bits, known = beyond_accuracy.compute_information(counts), ~np.isnan(liked)
    before = beyond_accuracy.compute_mean(liked)
    out: dict[str, object] = {}
    for k in ks:
        best = top[:, :k]
        shown = beyond_accuracy.count_exposure(best, len(counts))
        popular = beyond_accuracy.compute_list_means(events, best)
        out[f"coverage@{k}"] = beyond_accuracy.compute_coverage(shown)
        out[f"gini@{k}"] = beyond_accuracy.compute_gini(shown)
        novel = beyond_accuracy.compute_list_means(bits, best)
        out[f"novelty@{k}"] = beyond_accuracy.compute_mean(novel)
        out[f"popularity@{k}"] = beyond_accuracy.compute_mean(popular)
        out[f"popularity_lift@{k}"] = (
            beyond_accuracy.compute_mean(popular[known]) / before if before > 0 else float("nan")
        )
        diverse = [beyond_accuracy.compute_diversity(b, vectors) for b in _split_blocks(best)]
        out[f"diversity@{k}"] = beyond_accuracy.compute_mean(np.concatenate(diverse))
    if category is not None:
        out |= _compute_calibrations(past, case, top, ks, tables.items[category])
    return {**out, "cases": len(case), "seconds": time.monotonic() - began}


def compute_text_vectors(texts: list[str]) -> csr_matrix:
    """(I, words) sparse TF-IDF vectors of length 1, or 0 for a text without words."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, tokenizer=split_words, token_pattern=None)
    try:
        found: csr_matrix = vectorizer.fit_transform(texts).tocsr()
    except ValueError:  # no text has a word
        found = csr_matrix((len(texts), 1))
    return found


def _split_blocks(top: Ints) -> list[Ints]:
    return [top[at : at + _BLOCK] for at in range(0, len(top), _BLOCK)]


def _compute_calibrations(
    past: CaseHistories, case: Ints, top: Ints, ks: Sequence[int], values: pl.Series
) -> dict[str, float]:
    """`calibration@k` at each cut-off; as `compute_measures`, with the column of the categories."""
    from scipy.sparse import csr_matrix

    own = beyond_accuracy.compute_category_shares(beyond_accuracy.parse_categories(values))
    found: dict[int, list[Floats]] = {k: [] for k in ks}
    for part, best in zip(_split_blocks(case), _split_blocks(top), strict=True):
        _, items = past.list_items(part)
        ends = np.concatenate([[0], np.cumsum(past.count_events(part))])
        history = csr_matrix((np.ones(len(items)), items, ends), shape=(len(part), own.shape[0]))
        wanted = (history @ own).toarray()
        for k in ks:
            found[k].append(beyond_accuracy.compute_calibration(best[:, :k], wanted, own))
    return {f"calibration@{k}": beyond_accuracy.compute_mean(np.concatenate(found[k])) for k in ks}
