"""Items by the titles that someone says."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.trained.conversation.columns import normalize

_YEAR = re.compile(r"\s*\(\d{4}[^)]*\).*$")
_MOVED = re.compile(r"^(.*), (the|a|an|il|la|le|les|der|die|das|el)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(the|a|an) ")


class TitleFinder:
    """Finds items by their titles, whole and without regard to case, accents or an article.

    Args:
        items: As `Tables.items`; without a column `title`, a title is the text up to its year.
        counts: (I,) how often each item is in the training events.
    """

    def __init__(self, items: pl.DataFrame, counts: NDArray[np.float64]) -> None:
        names = items["title"] if "title" in items.columns else items["text"]
        ids: Sequence[str] = items["item"].cast(pl.String).to_list()
        self._items: dict[str, str] = {}
        # Of items with one title, the one with most events; of equals the first.
        for row in np.argsort(-counts, kind="stable").tolist():
            key = _make_key(str(names[row] or ""))
            if key:
                self._items.setdefault(key, ids[row])

    def find(self, phrase: str) -> str | None:
        """The id of the item of a title, or None."""
        return self._items.get(_make_key(phrase))


def _make_key(title: str) -> str:
    plain = _YEAR.sub("", title).strip()
    moved = _MOVED.match(plain)
    return _ARTICLE.sub("", normalize(moved[1] if moved else plain))
