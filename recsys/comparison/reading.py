"""What stands behind a case: titles of its target and of what the user had liked last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.comparison.runs import PastRun
from recsys.config import stored
from recsys.data import prepare
from recsys.data.past import Past
from recsys.data.tables import fingerprint
from recsys.errors import RecsysError
from recsys.resume import CONFIG

LAST = 3
"""Items shown of a history."""
LENGTH = 48
"""Letters shown of a text."""


@dataclass(frozen=True)
class Told:
    """A case in words.

    Attributes:
        target: Title of the target.
        history: Own id and title of each of the last liked items before it, latest first.
    """

    target: str
    history: tuple[tuple[str, str], ...]


def short(text: str) -> str:
    """The first words of a text on one line, cut between words where one ends early enough."""
    line = " ".join(text.split())
    if len(line) <= LENGTH:
        return line
    cut = line[: LENGTH - 1]
    head, blank, _ = cut.rpartition(" ")
    return (head if blank and len(head) > LENGTH // 2 else cut).rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def read(run: PastRun, cases: NDArray[np.int64]) -> tuple[dict[int, Told], str]:
    """Reads the data of a run once, and what it says of some cases.

    Args:
        run: Any of the compared runs: all have the same data and cases.
        cases: Case numbers, which are the numbers of the targets' events.

    Returns:
        What is known by case number, and why that is nothing, or an empty text.
    """
    if not len(cases):
        return {}, ""
    try:
        data = stored(run.folder / CONFIG).data
        tables, split = prepare.prepare(data)
    except RecsysError as error:
        return {}, f"Ids only, as the data cannot be loaded: {error}"
    if fingerprint(tables) != run.result["data"]["fingerprint"]:
        return {}, "Ids only, as the data has changed since the runs."
    texts, items = tables.items["text"], tables.items["item"]
    past, out = Past(split), {}
    for case in np.unique(cases).tolist():
        _, rows = past.items(np.array([case]))
        last = rows[::-1][:LAST].tolist()
        out[case] = Told(
            short(texts[int(split.item[case])]),
            tuple((str(items[row]), short(texts[row])) for row in last),
        )
    return out, ""
