"""Queries as texts: what they are made of, and which say something without a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recsys.config.compose import Run
from recsys.data.batches.user_texts import WrittenUsers
from recsys.data.context import Situations
from recsys.data.splits.methods import Split
from recsys.data.tables import Tables


def said(run: Run, known: Situations) -> Mapping[str, Sequence[str]]:
    """What a query's text says of each code of its situation, by name."""
    return known.pieces() if run.architecture.reads_context_texts else {}


def written(run: Run, tables: Tables, known: Situations) -> WrittenUsers | None:
    """The queries' texts, or None where no query is a text."""
    if not run.architecture.reads_user_texts:
        return None
    items, users = (table["text"].to_list() for table in (tables.items, tables.users))
    return WrittenUsers(items, users, said(run, known))


def worded(
    run: Run, tables: Tables, split: Split, known: Situations
) -> npt.NDArray[np.bool_] | None:
    """(N,) whether a query's text says something at each event, histories apart.

    None where no query is a text.
    """
    if not run.architecture.reads_user_texts:
        return None
    has = (tables.users["text"].str.strip_chars() != "").to_numpy()
    found: npt.NDArray[np.bool_] = has[split.user()]
    for name, pieces in said(run, known).items():
        found |= np.array([bool(piece) for piece in pieces])[known.codes[name]]
    return found
