"""python -m recsys.recommend run=RUN user=ID | history=ID,ID k=10: what a run recommends."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config import nearest, stored
from recsys.errors import ConfigError, RecsysError
from recsys.fit import hush
from recsys.resume import last_run

KEYS = ("run", "user", "history", "k", "output")
USAGE = (
    "usage: python -m recsys.recommend run=FOLDER|last user=ID|history=ID,ID [k=10] [output=runs]"
)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or 2 for a mistake of the user, told in one sentence.
    """
    if "--help" in argv:
        print(USAGE)
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
        if not equals or key not in KEYS:
            raise ConfigError(f"'{word}' is not understood.{nearest(key, KEYS)}")
        out[key] = value
    if "run" not in out or ("user" in out) == ("history" in out):
        raise ConfigError(f"give run= and one of user= and history=. {USAGE}.")
    if not out.get("k", "10").isdigit() or int(out.get("k", "10")) < 1:
        raise ConfigError(f"k is '{out['k']}'; give a whole number from 1.")
    return out


def recommend(words: dict[str, str]) -> list[str]:
    """One line an item: rank, score, id and text.

    Raises:
        ConfigError: The run cannot be read, or the data has changed since.
        DataError: An id is unknown.
    """
    from recsys import build
    from recsys.data.tables import IdMap

    name = words["run"]
    folder = Path(name) if name != "last" else last_run(words.get("output", "runs"), complete=True)
    run = stored(folder / "config.yaml")
    hush()
    if not (folder / "result.json").is_file():
        raise ConfigError(f"{folder}: the run is not complete, result.json is missing.")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    made = build.assemble(run)
    if made.fingerprint != result["data"]["fingerprint"]:
        raise ConfigError(f"{folder}: the data has changed since the run; run fit again.")
    if run.architecture.trains:
        made.recommender.load_trained(folder / "checkpoints" / "best.safetensors")
    items = IdMap(made.tables.items["item"].to_list(), "item")
    if "user" in words:
        user = IdMap(made.tables.users["user"].to_list(), "user").row(words["user"])
        had = made.examples.history(user)
    else:
        had = items.rows(words["history"].split(","))
    import torch

    batch = made.examples.serve(had)
    scores, rows = made.recommender.top(batch, int(words.get("k", "10")), torch.from_numpy(had))
    texts = made.recommender.parts.texts
    return [
        f"{place:>3}  {score:8.4f}  {items.ids[row]:<12}  {texts[row]}"
        for place, (score, row) in enumerate(
            zip(scores.tolist(), rows.tolist(), strict=True), start=1
        )
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
