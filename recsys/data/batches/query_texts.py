"""Queries as texts: what they are made of, and which say something without a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recsys.config.compose import RunConfig
from recsys.data.batches.user_texts import PlainUserTexts
from recsys.data.context import ContextFeatures
from recsys.data.moments import MOMENT
from recsys.data.splits.split import Split
from recsys.data.tables import Tables


def make_context_texts(run: RunConfig, context: ContextFeatures) -> Mapping[str, Sequence[str]]:
    """What a query's text says of each code of its context, by name."""
    return context.format_codes() if run.architecture.reads_context_texts else {}


def make_plain_user_texts(
    run: RunConfig, tables: Tables, context: ContextFeatures
) -> PlainUserTexts | None:
    """The queries' texts, or None where no query is a text."""
    if not run.architecture.reads_user_texts:
        return None
    items, users = (table["text"].to_list() for table in (tables.items, tables.users))
    said = {} if context.moments is None else {MOMENT: context.moments.texts}
    return PlainUserTexts(items, users, {**said, **make_context_texts(run, context)})


def find_events_with_text(
    run: RunConfig, tables: Tables, split: Split, context: ContextFeatures
) -> npt.NDArray[np.bool_] | None:
    """(N,) whether a query's text says something at each event, histories apart.

    None where no query is a text.
    """
    if not run.architecture.reads_user_texts:
        return None
    has = (tables.users["text"].str.strip_chars() != "").to_numpy()
    has_text: npt.NDArray[np.bool_] = has[split.compute_user_rows()]
    if context.moments is not None:
        has_text |= context.moments.codes > 0
    for name, pieces in make_context_texts(run, context).items():
        has_text |= np.array([bool(piece) for piece in pieces])[context.codes[name]]
    return has_text
