"""python -m recsys.boards push=FOLDER: makes a specification a workspace and a report."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config.compose import nearest
from recsys.config.flags import split_flags
from recsys.config.help import format_entries
from recsys.errors import ConfigError, RecsysError
from recsys.words import split_words

KEYS = {
    "push": "folder of a comparison (made with wandb=spec) or of a sweep, with its wandb.json",
    "wandb_entity": "user or team at Weights & Biases (default: as in the file, else the key's)",
}


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    try:
        line = split_flags(argv)
        if line.help:
            print(format_usage())
            return 0
        values = split_words(line.words, "push=FOLDER")
        for key, value in values.items():
            if key not in KEYS:
                raise ConfigError(f"{key} is not a known key.{nearest(key, KEYS)}")
            if not value:
                raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
        if "push" not in values:
            raise ConfigError("name the folder of the specification: push=FOLDER.")
        from recsys.boards import push, specification

        print(
            *push.push_board(
                specification.read_board(Path(values["push"]), values.get("wandb_entity", ""))
            ),
            sep="\n",
        )
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def format_usage() -> str:
    """What `--help` prints."""
    lines = ["usage: python -m recsys.boards push=FOLDER [wandb_entity=NAME]", ""]
    return "\n".join([*lines, *format_entries((f"{key}=", text) for key, text in KEYS.items())])


if __name__ == "__main__":
    command.run_command(main)
