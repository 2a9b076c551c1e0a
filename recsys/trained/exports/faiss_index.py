"""A FAISS index over the item vectors: exact, or a graph where the catalog is large.

A row of the index is a row of the table of items beside it. The product of a query with it is the
run's score over its scale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recsys.trained.exports.opened import (
    OpenedRun,
    Vectors,
    compute_overlap,
    make_history_queries,
    open_for_export,
    select_best,
)
from recsys.trained.exports.source import ExportSource
from recsys.trained.exports.vector_files import describe_vectors, hash_files, make_item_table

EXACT_BELOW = 100_000
"""Items from which on a graph is searched in place of all vectors."""

INDEX, TABLE, ABOUT = "index.faiss", "items.parquet", "index.json"

# Malkov and Yashunin, TPAMI 2020: neighbours of a node, and how many are kept while one is added
# and while one is asked for.
_LINKS, _BUILD, _SEARCH = 32, 200, 128
_K = 10


def write_faiss(run: ExportSource, folder: Path) -> list[str]:
    """Fills a folder with an index, the items of its rows, and what it is.

    Args:
        run: The run.
        folder: An empty folder.

    Returns:
        Sentences on what the folder holds.
    """
    import faiss

    opened = open_for_export(run)
    rows = _make_rows(opened)
    exact = len(rows) < EXACT_BELOW
    index: Any
    if exact:
        index = faiss.IndexFlatIP(rows.shape[1])
    else:
        index = faiss.IndexHNSWFlat(rows.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD, _SEARCH
    index.add(rows)
    faiss.write_index(index, str(folder / INDEX))
    make_item_table(opened).write_parquet(folder / TABLE)
    about = describe_vectors(opened) | {
        "index": "exact" if exact else "hnsw",
        "append_one_to_queries": opened.score.added is not None,
    }
    kind = "exact search" if exact else f"HNSW of {_LINKS} links"
    notes = [f"{len(rows):,} vectors of width {rows.shape[1]} in {INDEX}, {kind}"]
    if opened.score.added is not None:
        notes.append("append a 1 to the vector of a query: the last column is what is popular")
    if not exact:
        queries = _extend_queries(opened, make_history_queries(opened, opened.vectors))
        recall = compute_overlap(select_best(queries, rows, _K), index.search(queries, _K)[1])
        about["recall@10"] = recall
        notes.append(
            f"recall@10 against exact search {recall:.2%}, of {len(queries):,} users' histories "
            f"(efSearch {_SEARCH})"
        )
    about["sha256"] = hash_files(folder, (INDEX, TABLE))
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    remarks = opened.list_remarks()
    return notes + (remarks if opened.score.added is None else remarks[1:])


def _make_rows(opened: OpenedRun) -> Vectors:
    """(I, D), or (I, D + 1) with what the score adds for an item, over the score's scale."""
    added = opened.score.added
    if added is None:
        return np.ascontiguousarray(opened.vectors)
    column = added.detach().float().cpu().numpy()[:, None] / opened.score.scale
    return np.concatenate([opened.vectors, column], axis=1, dtype=np.float32)


def _extend_queries(opened: OpenedRun, queries: Vectors) -> Vectors:
    """Queries as the index has them: with a 1 behind where items have what is added."""
    if opened.score.added is None:
        return queries
    return np.concatenate([queries, np.ones((len(queries), 1))], axis=1, dtype=np.float32)
