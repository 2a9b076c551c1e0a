"""python -m recsys.recommend run=RUN user=ID | history=ID,ID | text=TEXT: what a run suggests.

Where items have windows of availability, only those that can be had now are suggested, or at the
moment that `at=` gives. A run that was trained with context is asked in one: hour and weekday are
those of that moment, and `context.device=phone` gives a column.
"""

from __future__ import annotations

from recsys import guard

guard.listen(__name__)

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import printable
from recsys.config import nearest, stored
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.fit import hush
from recsys.numbers import read_count
from recsys.resultfile import read_result
from recsys.resume import last_run

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.build import Assembly
    from recsys.config import Run
    from recsys.data.tables import Tables
    from recsys.recommender import Recommender
    from recsys.types import Batch

ASKS = ("user", "history", "text")
_EMPTY = {
    "user": ("user", "give an id, as in user=7"),
    "history": ("item", "give ids with a comma between two of them, as in history=7,12"),
    "text": ("text", 'give what is looked for, as in text="red lamp"'),
}
CONTEXT = "context."
KEYS = ("run", *ASKS, "k", "at", f"{CONTEXT}COLUMN", "output")
USAGE = (
    "usage: python -m recsys.recommend run=FOLDER|last user=ID|history=ID,ID|text=TEXT [k=10] "
    f"[at=now] [{CONTEXT}COLUMN=VALUE ...] [output=runs]"
)
HELP = (
    "Items with available_from or available_until are suggested only where they can be had at the "
    "moment at=, such as 2024-05-01T12:00 (UTC): by itself now. A run with architecture.context is "
    "asked with the hour and weekday of that moment, and with the columns that are given, as in "
    f"{CONTEXT}device=phone; a column that is not given is unknown."
)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or 2 for a mistake of the user, told in one sentence.
    """
    if "--help" in argv:
        print(USAGE, HELP, sep="\n")
        return 0
    try:
        for line in recommend(_words(argv)):
            print(line)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _words(argv: Sequence[str]) -> dict[str, str]:
    """The words as given: an id such as 007 must stay text."""
    out = {}
    for word in argv:
        key, equals, value = word.partition("=")
        if key == "context":
            raise ConfigError(
                f"'{word}' names no column; give each a word of its own, as in "
                f"{CONTEXT}device=phone."
            )
        if not equals or not (key in KEYS or key.startswith(CONTEXT)):
            raise ConfigError(f"'{word}' is not understood.{nearest(key, KEYS)}")
        out[key] = value
    if "run" not in out or sum(ask in out for ask in ASKS) != 1:
        raise ConfigError(f"give run= and one of user=, history= and text=. {USAGE}.")
    for ask, (what, remedy) in _EMPTY.items():
        parts = out.get(ask, "-").split(",") if ask == "history" else [out.get(ask, "-")]
        if not all(part.strip() for part in parts):
            raise ConfigError(f"{ask}= names no {what}; {remedy}.")
    if read_count(out.get("k", "10"), least=1) is None:
        raise ConfigError(f"k is '{out['k']}'; give a whole number from 1.")
    return out


def recommend(words: dict[str, str]) -> list[str]:
    """One line an item: rank, score, id and text.

    Raises:
        ConfigError: The run cannot be read, the data has changed since, or the run knows nothing
            of a context that is given.
        DataError: An id is unknown, or the moment is no time.
    """
    from recsys import build, mining

    name = words["run"]
    folder = Path(name) if name != "last" else last_run(words.get("output", "runs"), complete=True)
    run = stored(folder / "config.yaml")
    hush()
    if not (folder / "result.json").is_file():
        raise ConfigError(f"{folder}: the run is not complete, result.json is missing.")
    expected = _fingerprint(folder / "result.json")
    moment = words.get("at", "now")
    at = _milliseconds(moment)

    def check(tables: Tables, found: str) -> None:
        _check_data(run, folder, found == expected)
        try:
            _asked_rows(tables, words)
        except DataError as error:
            raise DataError(f"{error}{_sampled(run, words)}") from None

    # Who ranked for training may be gone.
    made = build.assemble(mining.without_hard(run), check)
    if run.architecture.trains:
        made.recommender.load_trained(folder / "checkpoints" / "best.safetensors")
    given = {k.removeprefix(CONTEXT): v for k, v in words.items() if k.startswith(CONTEXT)}
    situation, notes = made.situations.ask(at, given)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    batch, seen, query = _asked(made, words, situation)
    seen = _with_closed(made, moment, at, seen)
    k = int(words.get("k", "10"))
    pool = None
    if run.architecture.trains and not run.architecture.reads_item_vectors:
        # A joint pass for every item of the catalog would take minutes: rank what floors propose.
        pool = _proposed(made, words, batch, seen, max(k, run.evaluation.candidates))
    scores, rows = made.recommender.top(batch, k, seen, query, pool)
    texts, ids = made.recommender.parts.texts, made.tables.items["item"].to_list()
    return [
        printable.line(f"{place:>3}  {score:8.4f}  {ids[row]:<12}  {texts[row]}")
        for place, (score, row) in enumerate(
            zip(scores.tolist(), rows.tolist(), strict=True), start=1
        )
    ]


def _check_data(run: Run, folder: Path, same: bool) -> None:
    """Refuses other data where what was learned belongs to its rows; else says that it is other.

    A model that reads nothing but texts ranks a new item as it ranked those of the test that
    training had not shown.

    Raises:
        ConfigError: The data has changed, and the run knows items, tags or situations by number.
    """
    if same:
        return
    if not run.architecture.trains or run.architecture.learns_rows:
        raise ConfigError(f"{folder}: the data has changed since the run; run fit again.")
    print(
        "note: the data has changed since the run: its items, users and events are ranked and read "
        "as they are now, by what the run learned then",
        file=sys.stderr,
    )


def _asked_rows(tables: Tables, words: dict[str, str]) -> tuple[int, list[int]]:
    """Row of the user that is asked for, -1 for none, and rows of the history that is given.

    Raises:
        DataError: An id is unknown.
    """
    from recsys.data.tables import IdMap

    if "user" in words:
        return IdMap(tables.users["user"].to_list(), "user").row(words["user"]), []
    if "history" in words:
        items = IdMap(tables.items["item"].to_list(), "item")
        return -1, items.rows([i.strip() for i in words["history"].split(",")]).tolist()
    return -1, []


def _sampled(run: Run, words: dict[str, str]) -> str:
    """A sentence on the part of the data that the run keeps, where an unknown id may be left out.

    It begins with a blank; empty where everything is kept.
    """
    what = "user" if "user" in words else "item"
    most = run.data.max_users if what == "user" else run.data.max_items
    if most is None:
        return ""
    return f" The run keeps a part of the {what}s (data.max_{what}s={most}); ask for one of them."


def _milliseconds(moment: str) -> int:
    """A moment in milliseconds since 1970.

    Raises:
        DataError: It is no time.
    """
    import time

    import polars as pl

    from recsys.data.times import parse_times

    if moment == "now":
        return round(time.time() * 1000)
    return int(parse_times(pl.Series("at", [moment]), "at=")[0])


def _with_closed(made: Assembly, moment: str, at: int, seen: Tensor) -> Tensor:
    """Catalog rows to leave out: those that were seen, and those that cannot be had.

    Raises:
        DataError: Nothing can be had at that moment.
    """
    import torch

    from recsys.data.windows import Windows

    windows = Windows.of(made.tables.items)
    if windows is None:
        return seen
    closed = windows.closed(at)
    if len(closed) == len(made.tables.items):
        raise DataError(
            f"no item can be had at={moment}: each is before its available_from or past its "
            "available_until; give at= a moment within them, such as at=2024-05-01T12:00."
        )
    return torch.cat([seen, torch.from_numpy(closed)])


def _fingerprint(path: Path) -> str:
    """The fingerprint of the data in a result.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        return str(read_result(path.parent)["data"]["fingerprint"])
    except (TypeError, KeyError):
        raise ConfigError(f"{path} is damaged; run fit again.") from None


def _asked(
    made: Assembly, words: dict[str, str], situation: dict[str, Tensor]
) -> tuple[Batch, Tensor, Tensor | None]:
    """One query in its situation, the rows it has seen, and its representation if a text asks."""
    import numpy as np
    import torch

    if "text" in words:
        batch = made.examples.serve(np.empty(0, dtype=np.int64))
        batch = replace(batch, situation=situation)
        query = _text_query(made.recommender, made, batch, words["text"])
        return batch, torch.empty(0, dtype=torch.long), query
    user, given = _asked_rows(made.tables, words)
    had = np.asarray(given, dtype=np.int64) if user < 0 else made.examples.history(user)
    seen = had if user < 0 else made.examples.seen(user)
    batch = replace(made.examples.serve(had, user), situation=situation)
    return batch, torch.from_numpy(seen), None


def _text_query(recommender: Recommender, made: Assembly, batch: Batch, text: str) -> Tensor:
    """What a text asks an architecture for."""
    import torch

    from recsys.types import Ragged

    ids = made.tokenize([text])[0] if made.tokenize is not None else []
    tokens = Ragged(torch.tensor(ids, dtype=torch.long), (len(ids),))
    with torch.no_grad():
        return recommender.eval().text_query(batch, text, tokens)


def _proposed(
    made: Assembly, words: dict[str, str], batch: Batch, seen: Tensor, size: int
) -> Tensor:
    """Catalog rows that popularity and tfidf put first, in turn, without repeats."""
    import torch

    from recsys import build, protocols

    proposals = []
    for name in protocols.FLOORS:
        maker = build.floor(name, made.parts)
        asks = name == "tfidf" and "text" in words
        query = _text_query(maker, made, batch, words["text"]) if asks else None
        proposals.append(maker.top(batch, size, seen, query)[1])
    length = min(len(rows) for rows in proposals)
    turns = torch.stack([rows[:length] for rows in proposals], dim=1).flatten().tolist()
    return torch.tensor(list(dict.fromkeys(turns))[:size])


if __name__ == "__main__":
    guard.command(main)
