"""Measures beyond accuracy of a run's test cases, from the best items that its rows keep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from torch import Tensor

from recsys.data.past import Past
from recsys.data.splits import Split
from recsys.data.tables import Tables
from recsys.errors import ConfigError
from recsys.metrics import beyond

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 4096
"""Cases whose histories are held at a time."""
_KINDS = 1000
"""Most categories: a column with more of them names items, not kinds."""


def take(rows: list[dict[str, Tensor]]) -> tuple[Ints, Ints] | None:
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


def shares(values: pl.Series) -> Floats:
    """(I, G) shares of each item's categories: `a|b` is half a and half b; all 0 without one.

    Raises:
        ConfigError: There are more categories than kinds of anything.
    """
    lists = values.cast(pl.String).fill_null("").str.split("|").to_list()
    kinds = [list(dict.fromkeys(k for word in each if (k := word.strip()))) for each in lists]
    place = {kind: at for at, kind in enumerate(sorted({k for each in kinds for k in each}))}
    if len(place) > _KINDS:
        raise ConfigError(
            f"evaluation.category: column '{values.name}' holds {len(place)} categories; use one "
            f"with at most {_KINDS}."
        )
    out = np.zeros((len(kinds), len(place)))
    for row, each in enumerate(kinds):
        for kind in each:
            out[row, place[kind]] = 1 / len(each)
    return out


def measures(
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
    own = None if category is None else shares(tables.items[category])
    liked, wanted = _histories(Past(split), case, counts.astype(np.float64), own)
    bits, events = beyond.information(counts), counts.astype(np.float64)
    vectors = text_vectors(tables.items["text"].to_list())
    known = ~np.isnan(liked)
    out: dict[str, object] = {}
    for k in ks:
        best = top[:, :k]
        shown = beyond.exposure(best, len(counts))
        popular = beyond.mean_of(events, best)
        before = beyond.mean(liked)
        out[f"coverage@{k}"] = beyond.coverage(shown)
        out[f"gini@{k}"] = beyond.gini(shown)
        out[f"novelty@{k}"] = beyond.mean(beyond.mean_of(bits, best))
        out[f"popularity@{k}"] = beyond.mean(popular)
        out[f"popularity_lift@{k}"] = (
            beyond.mean(popular[known]) / before if before > 0 else float("nan")
        )
        out[f"diversity@{k}"] = beyond.mean(
            np.concatenate([beyond.diversity(part, vectors) for part in _blocks(best)])
        )
        if own is not None and wanted is not None:
            out[f"calibration@{k}"] = beyond.mean(beyond.calibration(best, wanted, own))
    return {**out, "cases": len(case), "seconds": time.monotonic() - began}


def text_vectors(texts: list[str]) -> csr_matrix:
    """(I, words) sparse TF-IDF vectors of length 1, or 0 for a text without words."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    try:
        found: csr_matrix = words.fit_transform(texts).tocsr()
    except ValueError:  # no text has a word
        found = csr_matrix((len(texts), 1))
    return found


def _blocks(top: Ints) -> list[Ints]:
    return [top[at : at + _BLOCK] for at in range(0, len(top), _BLOCK)]


def _histories(
    past: Past, case: Ints, counts: Floats, own: Floats | None
) -> tuple[Floats, Floats | None]:
    """Mean training count (Q,) and categories (Q, G) of what each case's user liked before."""
    from scipy.sparse import csr_matrix

    liked, wanted = [], []
    for part in _blocks(case):
        owner, items = past.items(part)
        liked.append(beyond.mean_of_ragged(counts, owner, items, len(part)))
        if own is not None:
            ends = np.concatenate([[0], np.cumsum(past.lengths(part))])
            shape = (len(part), len(own))
            wanted.append(csr_matrix((np.ones(len(items)), items, ends), shape=shape) @ own)
    return np.concatenate(liked), np.concatenate(wanted) if own is not None else None
