"""ReDial's files: dialogues with who speaks, films as marks (@1234), titles and answers."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.data.readers import jsonl
from recsys.data.readers.dialogues import Turn, merge_turns
from recsys.errors import DataError

MARK = re.compile(r"@(\d+)")
"""How a film stands in a text."""

_KEYS = ("conversationId", "initiatorWorkerId", "messages")


@dataclass(frozen=True)
class Dialogue:
    """One dialogue as it is read.

    Attributes:
        number: Its conversationId.
        part: train, val or test.
        seeker: Who seeks.
        turns: Speaker and text of each.
        names: Titles by film, where known.
        forms: Answers by film, the seeker's in the place of the other's.
    """

    number: str
    part: str
    seeker: str
    turns: tuple[tuple[str, str], ...]
    names: Mapping[str, str]
    forms: Mapping[str, object]


def parse_object(value: object) -> dict[str, Any]:
    """An object; the files have an empty list in the place of an empty object."""
    return value if isinstance(value, dict) else {}


def read_dialogues(path: Path, part: str) -> Iterator[Dialogue]:
    """The dialogues of a file.

    Raises:
        DataError: It is missing or damaged, or a line holds no dialogue.
    """
    for place, raw in enumerate(jsonl.read_objects(path), 1):
        found: dict[str, Any] = raw
        missing = [key for key in _KEYS if found.get(key) is None]
        turns = found.get("messages")
        if not missing and not (
            isinstance(turns, list)
            and all(
                isinstance(t, dict) and "text" in t and t.get("senderWorkerId") is not None
                for t in turns
            )
            and re.fullmatch("[0-9]{1,18}", str(found["conversationId"]).strip())
        ):
            missing = ["messages with text and senderWorkerId, and a number as conversationId"]
        if missing:
            raise DataError(
                f"{path}: dialogue {place} has no {missing[0]}; mend or remove the line."
            )
        names = parse_object(found.get("movieMentions"))
        yield Dialogue(
            number=str(found["conversationId"]).strip(),
            part=part,
            seeker=str(found["initiatorWorkerId"]),
            turns=tuple((str(t["senderWorkerId"]), str(t["text"] or "")) for t in turns or ()),
            names={key: " ".join(str(name or "").split()) for key, name in names.items()},
            forms=parse_object(found.get("respondentQuestions"))
            | parse_object(found.get("initiatorQuestions")),
        )


def write_titles(text: str, names: Mapping[str, str]) -> str:
    """A text with titles in the place of marks."""
    return MARK.sub(lambda mark: names.get(mark[1], ""), text)


def make_turns(dialogue: Dialogue, names: Mapping[str, str]) -> list[Turn]:
    """The turns of a dialogue, those of one side in a row as one."""
    return merge_turns(
        [
            Turn(
                recommends=speaker != dialogue.seeker,
                text=" ".join(html.unescape(write_titles(text, names)).split()),
                items=tuple(dict.fromkeys(f for f in MARK.findall(text) if f in names)),
            )
            for speaker, text in dialogue.turns
        ]
    )
