"""A conversation with whoever types, and one that is said again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from recsys.chat.lines import format_turn
from recsys.errors import ConfigError, DataError
from recsys.printable import escape_line
from recsys.recommend.choice import open_model
from recsys.recommend.lines import get_width
from recsys.runtime.command import pause_collection
from recsys.trained.conversation.conversation import SIZE, Conversation
from recsys.trained.conversation.scoring import ConversationModel
from recsys.trained.conversation.transcript import (
    VERSION,
    Header,
    Transcript,
    TranscriptFile,
    check_same,
    check_state,
    compare_turns,
    read_transcript,
)
from recsys.trained.conversation.turns import Turn
from recsys.trained.lookup import parse_moment, print_note

PROMPT = "> "
_CONTEXT = "context."
_SETTINGS = ("k", "user", "history", "at")


def talk(words: Mapping[str, str]) -> Iterator[str]:
    """The lines of a conversation, as they come.

    Args:
        words: Of the command, by key.

    Raises:
        ConfigError: The run cannot be read, or a word is not what the transcript has.
        DataError: An id is unknown, or the transcript cannot be read or written.
    """
    path = Path(words["transcript"]) if "transcript" in words else None
    before = read_transcript(path) if path is not None and _has_content(path) else None
    header = _make_header(words) if before is None else before.header
    if path is not None and before is not None:
        _check_words(path, words, before.header)
    conversation, header = _open(words, header)
    if path is not None and before is not None:
        _go_on(path, before, header, conversation)
    file = None if path is None else TranscriptFile(path, header)
    yield from _greet(conversation, path, before)
    try:
        if before is None or not before.turns:
            first = conversation.open()
            if file is not None:
                file.append(first)
            yield from _format(conversation, first)
        for line in _read_lines():
            turn = conversation.say(line)
            if file is not None:
                file.append(turn)
            yield from _format(conversation, turn)
            if turn.ended:
                break
    finally:
        if file is not None:
            file.close()


def replay(words: Mapping[str, str]) -> Iterator[str]:
    """The lines of a transcript said again, with a last line on whether its lists came again.

    Args:
        words: Of the command, by key.

    Raises:
        ConfigError: The run cannot be read.
        DataError: The transcript cannot be read, or a list is another one.
    """
    path = Path(words["replay"])
    kept = read_transcript(path)
    conversation, header = _open(words, kept.header)
    if (header.model, header.catalog) != (kept.header.model, kept.header.catalog):
        print_note(f"{path} was had with {kept.header.model}, or with other items.")
    different: list[str] = []
    for expected in kept.turns:
        if expected.number:
            yield f"{PROMPT}{escape_line(expected.said)}"
            turn = conversation.say(expected.said)
        else:
            turn = conversation.open()
        yield from _format(conversation, turn)
        difference = compare_turns(expected, turn)
        if difference is not None:
            different.append(difference)
    count = sum(turn.number > 0 for turn in kept.turns)
    if different:
        raise DataError(f"{path}: {len(different)} of {count} turns differ; {different[0]}.")
    yield f"replayed {count} turns: all lists are the same"


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _make_header(words: Mapping[str, str]) -> Header:
    """What a conversation is to be had with, but for the model."""
    at = words.get("at", "now")
    if at == "now":  # one moment for the whole conversation, so that it can be replayed
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    parse_moment(at)
    return Header(
        recsys_conversation=VERSION,
        model="",
        catalog="",
        size=int(words.get("k", SIZE)),
        at=at,
        user=words.get("user"),
        history=_split_history(words),
        context={k.removeprefix(_CONTEXT): v for k, v in words.items() if k.startswith(_CONTEXT)},
    )


def _split_history(words: Mapping[str, str]) -> list[str] | None:
    if "history" not in words:
        return None
    items = [each.strip() for each in words["history"].split(",")]
    if not all(items):
        raise ConfigError("history= names no item; give ids with a comma between two of them.")
    return items


def _check_words(path: Path, words: Mapping[str, str], header: Header) -> None:
    """Raises a `ConfigError` where a word is not what the conversation began with."""
    history = None if header.history is None else ",".join(header.history)
    began = {"k": str(header.size), "user": header.user, "history": history, "at": header.at}
    began |= {f"{_CONTEXT}{name}": value for name, value in header.context.items()}
    for key, value in words.items():
        if (key in _SETTINGS or key.startswith(_CONTEXT)) and began.get(key) != value:
            raise ConfigError(
                f"{path} began with {key}={began.get(key) or ''}, and {key} is '{value}'; leave "
                "it out, or name another file."
            )


@pause_collection()
def _open(words: Mapping[str, str], header: Header) -> tuple[Conversation, Header]:
    """A conversation with the model, and what it is had with."""
    answering = open_model(words, words.get("output", "runs"))
    model = ConversationModel(answering, header.start, header.at, header.context)
    return Conversation(model, header.size), Header.of(model, header.size)


def _go_on(path: Path, before: Transcript, header: Header, conversation: Conversation) -> None:
    """Brings a conversation to where its transcript ends."""
    check_same(path, before.header, header)
    for turn in before.turns:
        check_state(path, turn, conversation.model)
    conversation.resume(before.turns)


def _greet(
    conversation: Conversation, path: Path | None, before: Transcript | None
) -> Iterator[str]:
    """What the conversation is with, and where one that goes on stands."""
    model = conversation.model
    names = ", ".join(model.columns.names)
    yield escape_line(f"{model.name}: {len(model.ids):,} items; columns: {names}")
    if before is not None and before.turns:
        count = before.turns[-1].number
        yield escape_line(f"{path}: goes on behind turn {count}; list shows where it stands.")
    else:
        yield "Say what you are looking for; help says what is understood, quit ends it."


def _format(conversation: Conversation, turn: Turn) -> list[str]:
    return format_turn(turn, get_width(), len(conversation.model.ids))


def _read_lines() -> Iterator[str]:
    """The lines that are typed, or those of a pipe, which are printed too."""
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    if sys.stdin.isatty():
        import readline  # noqa: F401  (input() has a history by it)

        while True:
            try:
                yield input(PROMPT)
            except EOFError:
                print()
                return
    for line in sys.stdin:
        print(f"{PROMPT}{escape_line(line.strip())}")
        yield line
        sys.stdout.flush()
