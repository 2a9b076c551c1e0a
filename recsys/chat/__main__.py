"""python -m recsys.chat run=RUN|folder=BUNDLE: a conversation that refines a list.

What is understood is on the page docs/chat.md, and `help` in the conversation says it too. Where
the input is no terminal, each of its lines is a turn, and the output has no control codes.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Iterator, Sequence
from pathlib import Path

from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError, nearest
from recsys.words import require_count, split_single_words

CONTEXT = "context."
USAGE = "usage: python -m recsys.chat run=FOLDER|last|folder=BUNDLE [key=value ...]"
WORDS = (
    ("run=FOLDER", "of a finished run; last: the newest one; a glob: the newest of those"),
    ("folder=BUNDLE", "in place of run=: a bundle, which python -m recsys.export writes"),
    ("k=10", "how many items a list has, and each further page"),
    ("user=ID", "a user of the data, whose history counts beside what is said"),
    ("history=ID,ID", "items that someone unknown had, the latest one last"),
    ("transcript=FILE", "keep the conversation, a JSON line a turn; one that is there goes on"),
    ("replay=FILE", "say the lines of a transcript again; an error where a list is another one"),
    ("seekers=N", "in place of a conversation: so many scripted seekers test the run"),
    ("seed=0", "of the seekers and what they look for"),
    ("items=FILE", "further items, as in recommend"),
    ("at=now", "the moment, as in recommend"),
    (f"{CONTEXT}COLUMN=VALUE", "as in recommend"),
    ("output=runs", "where run=last looks"),
)

_OF_SEEKERS = ("run", "folder", "seekers", "seed", "k", "items", "output")


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(argv, lambda _: format_command(USAGE, WORDS), chat)


def chat(argv: Sequence[str]) -> Iterator[str]:
    """The lines of a conversation, as they come.

    Raises:
        ConfigError: A word is not understood, or the run cannot be read.
        DataError: An id is unknown, or a file cannot be read or written.
    """
    words = _parse_words(argv)
    # Only now, so that a typo is told before anything loads.
    from recsys.chat.seekers import run_seekers
    from recsys.chat.session import replay, talk

    if "seekers" in words:
        return run_seekers(words)
    return replay(words) if "replay" in words else talk(words)


def _parse_words(argv: Sequence[str]) -> dict[str, str]:
    """The words by key.

    Raises:
        ConfigError: One is not understood or there twice, or does not go with another.
    """
    words = split_single_words(argv, "run=last")
    known = [word.partition("=")[0] for word, _ in WORDS]
    for key, value in words.items():
        if key not in known and (not key.startswith(CONTEXT) or key == CONTEXT):
            raise ConfigError(f"'{key}={value}' is not understood.{nearest(key, known)}")
        if not value.strip():
            raise ConfigError(f"{key}= is empty; give a value, or leave it out.")
    if sum(of in words for of in ("run", "folder")) != 1:
        raise ConfigError("give run= or folder=; --help says more.")
    for one, other in (("user", "history"), ("transcript", "replay")):
        if one in words and other in words:
            raise ConfigError(f"give one of {one}= and {other}=.")
    if "k" in words:
        require_count("k", words["k"], 1)
    if "seekers" in words:
        require_count("seekers", words["seekers"], 1)
        own = [k for k in words if k not in _OF_SEEKERS]
        if own:
            raise ConfigError(f"{own[0]}= is of a conversation, and seekers= holds none; drop it.")
    if "seed" in words:
        if "seekers" not in words:
            raise ConfigError("seed= is of seekers=; give both, or leave it out.")
        require_count("seed", words["seed"], 0)
    for key in ("transcript", "replay"):
        if key in words and Path(words[key]).is_dir():
            raise ConfigError(f"{key}={words[key]} is a folder; name a file.")
    if "replay" in words:
        if not Path(words["replay"]).is_file():
            raise ConfigError(f"replay={words['replay']}: there is no such file.")
        own = [k for k in words if k not in ("run", "folder", "replay", "items", "output")]
        if own:
            raise ConfigError(f"{own[0]}= is what the transcript says; leave it out.")
    return words


if __name__ == "__main__":
    command.run_command(main)
