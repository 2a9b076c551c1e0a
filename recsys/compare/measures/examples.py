"""What stands behind a case: titles of its target and of what the user had liked last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.compare.finished_runs import FinishedRun
from recsys.config.compose import read_config
from recsys.data import prepare
from recsys.data.splits.history import CaseHistories
from recsys.data.tables import compute_fingerprint
from recsys.errors import RecsysError
from recsys.runtime.files import CONFIG

LAST = 3
"""Items shown of a history."""
LENGTH = 48
"""Letters shown of a text."""


@dataclass(frozen=True)
class CaseText:
    """A case in words.

    Attributes:
        target: Title of the target.
        history: Own id and title of each of the last liked items before it, latest first.
    """

    target: str
    history: tuple[tuple[str, str], ...]


def shorten_text(text: str) -> str:
    """The first words of a text on one line, cut between words where one ends early enough."""
    line = " ".join(text.split())
    if len(line) <= LENGTH:
        return line
    cut = line[: LENGTH - 1]
    head, blank, _ = cut.rpartition(" ")
    return (head if blank and len(head) > LENGTH // 2 else cut).rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def read_case_texts(
    run: FinishedRun, targets: Mapping[int, str]
) -> tuple[dict[int, CaseText], str]:
    """Reads the data of a run once, and what it says of some cases.

    Args:
        run: Any of the compared runs: all have the same data and cases.
        targets: Own id of the target by case number. The number alone does not name it: that of a
            case with several events is the first one's, and the target is the first positive.

    Returns:
        What is known by case number, and why that is nothing, or an empty text.
    """
    if not targets:
        return {}, ""
    try:
        data = read_config(run.folder / CONFIG).data
        tables, split = prepare.prepare_data(data)
    except RecsysError as error:
        return {}, f"Ids only, as the data cannot be loaded: {error}"
    if compute_fingerprint(tables) != run.result["data"]["fingerprint"]:
        return {}, "Ids only, as the data has changed since the runs."
    texts, items = tables.items["text"], tables.items["item"]
    past, out = CaseHistories(split), {}
    row_of = {str(item): row for row, item in enumerate(items)}
    for case, target in sorted(targets.items()):
        _, rows = past.list_items(np.array([case]))
        last = rows[::-1][:LAST].tolist()
        out[case] = CaseText(
            shorten_text(texts[row_of[target]]),
            tuple((str(items[row]), shorten_text(texts[row])) for row in last),
        )
    return out, ""
