"""python -m recsys.export run=RUN to=FOLDER format=NAME: a finished run as files for others.

What other systems load without code of this package: a folder of sentence-transformers, vectors
with ids, an index, a graph. The folder is there whole or not at all.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Sequence
from pathlib import Path

from recsys import printable
from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError, nearest
from recsys.trained.exports.formats import FORMATS, export_run
from recsys.trained.run import load
from recsys.words import split_words

KEYS = ("run", "to", "format", "users", "push", "output")
USAGE = "usage: python -m recsys.export run=FOLDER|last to=FOLDER format=NAME [key=value ...]"
WORDS = (
    ("run=FOLDER", "of a finished run; last: the newest one; a glob: the newest of those"),
    ("to=FOLDER", "the folder to make; of those that are there, only a bundle is replaced by one"),
    *((f"format={name}", about.help) for name, about in FORMATS.items()),
    ("users=true", "false: a bundle without who had what, which answers histories and texts"),
    ("push=USER/NAME", "also sends the folder to a private repository of a model hub"),
    ("output=runs", "where run=last looks"),
)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        lambda _: format_command(USAGE, WORDS),
        lambda words: export(_parse_words(words)),
    )


def _parse_words(words: Sequence[str]) -> dict[str, str]:
    """The words by key.

    Raises:
        ConfigError: One is unknown, or missing.
    """
    given = split_words(words, "format=vectors")
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"'{key}' is no key of export.{nearest(key, KEYS)}")
    for key in ("run", "to", "format"):
        if not given.get(key, "").strip():
            raise ConfigError(f"give run=, to= and format=; {key}= is missing. --help says more.")
    if given.get("users", "true") not in ("true", "false"):
        raise ConfigError(f"users is '{given['users']}'; give true or false.")
    return given


def export(words: dict[str, str]) -> list[str]:
    """Writes the folder; a line each on what it holds.

    Raises:
        ConfigError: The run cannot be read, or does not go with the format.
        DataError: The folder cannot be made.
    """
    run = load(words["run"], words.get("output", "runs"))
    folder = Path(words["to"])
    users = words.get("users", "true") == "true"
    lines = export_run(run, folder, words["format"], words.get("push"), users)
    return [printable.escape_line(line) for line in (*lines, f"export: {folder}")]


if __name__ == "__main__":
    command.run_command(main)
