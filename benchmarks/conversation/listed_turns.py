"""He et al.'s test turns as a list of titles, and the dialogues that train."""

from __future__ import annotations

import difflib
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recsys.data.readers.redial_files import make_turns, read_dialogues
from recsys.data.readers.tabular import read_json_by_id
from recsys.runtime.files import write_atomic

TURNS, TARGETS = 3552, 4778
"""Of He et al.'s file."""


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a packed file of JSON lines."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def prepare(root: Path, folder: Path) -> Path:
    """Writes all dialogues that may train as one part, with the test part and its list.

    The original training part is not to be had: the valid parts of two projects train, each
    dialogue once.

    Args:
        root: Holds `redial` and `redial-he`.
        folder: Where the files are written, which the source reads.

    Returns:
        The list of He et al.'s turns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed, own = folder / "he.jsonl", root / "redial"
    if listed.is_file():
        return listed
    found: dict[str, dict[str, Any]] = {}
    for name in ("iEvaLM_valid_data.jsonl.gz", "valid.jsonl.gz"):
        found |= {each["conversationId"]: each for each in read_lines(own / name)}
    tested = {each["conversationId"] for each in read_lines(own / "test.jsonl.gz")}
    kept = [each for number, each in found.items() if number not in tested]
    write_lines(folder / "train.jsonl", kept)
    for name in ("test.jsonl.gz", "id2info.json.gz"):
        write_atomic(folder / name, (own / name).read_bytes())
    write_lines(listed, list_turns(root))
    return listed


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes JSON lines, whole or not at all."""
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def list_turns(root: Path) -> list[dict[str, Any]]:
    """The turns of He et al.'s test file, in the form that `data.source.listed` reads.

    Their turns are named by the last message of a turn, and their films by numbers of DBpedia's
    names. Where a turn has as many films there as here, they are the same ones; of the other turns
    those are taken whose titles are most like the names.

    Raises:
        ValueError: Turns or films do not match.
    """
    names = {v: k for k, v in _read_json(root / "redial-he" / "entity2id.json.gz").items()}
    theirs = {
        (turn["dialog_id"].removeprefix("test_"), turn["turn_id"]): turn["rec"]
        for turn in read_lines(root / "redial-he" / "test.jsonl.gz")
    }
    path = root / "redial" / "test.jsonl.gz"
    raw = {each["conversationId"]: each for each in read_lines(path)}
    titles: dict[str, str] = {}
    dialogues = list(read_dialogues(path, "test"))
    for dialogue in dialogues:
        titles |= dialogue.names
    info = read_json_by_id(root / "redial" / "id2info.json.gz")  # as the source has them
    titles |= {film: " ".join(str(of["name"]).split()) for film, of in info.items() if of["name"]}
    out, matched = [], 0
    for dialogue in dialogues:
        ends = _find_last_messages(raw[dialogue.number]["messages"])
        for number, turn in enumerate(make_turns(dialogue, titles)):
            rec = theirs.get((dialogue.number, ends[number]))
            if rec is None:
                continue
            films = [titles[film] for film in turn.items]
            if len(films) != len(rec):
                films = _match(films, [_read_name(names[each]) for each in rec])
            matched += 1
            out.append({"dialog_id": dialogue.number, "turn_id": number, "rec": films})
    counts = matched, sum(len(turn["rec"]) for turn in out)
    if counts != (len(theirs), sum(map(len, theirs.values()))) or counts != (TURNS, TARGETS):
        raise ValueError(f"{counts[0]} turns with {counts[1]} films match He et al.'s file.")
    return out


def _read_json(path: Path) -> dict[str, int]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found: dict[str, int] = json.load(file)
    return found


def _find_last_messages(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Id of the last message of each turn, messages of one side in a row being one."""
    last: list[int] = []
    for before, message in zip([None, *messages[:-1]], messages, strict=True):
        if before is not None and before["senderWorkerId"] == message["senderWorkerId"]:
            last[-1] = message["messageId"]
        else:
            last.append(message["messageId"])
    return last


def _read_name(name: str) -> str:
    """A name of DBpedia as words: <http://dbpedia.org/resource/Up_(2009_film)>."""
    return name.rpartition("/")[2].removesuffix(">").replace("_", " ").replace(" film)", ")")


def _match(titles: Sequence[str], names: Sequence[str]) -> list[str]:
    """For each name the title that is most like it, each title once, in their order."""
    left, chosen = list(titles), Counter[str]()
    scored = sorted(
        ((_compare(title, name), title, name) for title in titles for name in names), reverse=True
    )
    done: set[str] = set()
    for _, title, name in scored:
        if title in left and name not in done:
            left.remove(title)
            done.add(name)
            chosen[title] += 1
    return [title for title in titles if chosen[title]]


def _compare(title: str, name: str) -> float:
    words = re.sub(r"[^a-z0-9 ]", "", title.lower()), re.sub(r"[^a-z0-9 ]", "", name.lower())
    return difflib.SequenceMatcher(None, *words).ratio()
