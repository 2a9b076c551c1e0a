"""python -m recsys.refresh events=FILE [run=RUN]: trains on, and promotes what is not worse.

The new run starts from the weights of the old one. Both are tested on the latest of the newer
events, and the new one is promoted where it is not worse. `rollback=true` takes that back.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Sequence

from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.refresh.command import KEYS, Request, refresh

USAGE = "usage: python -m recsys.refresh events=FILE [key=value ...]"


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(argv, lambda _: format_command(USAGE, KEYS.items()), _refresh)


def _refresh(words: Sequence[str]) -> None:
    refresh(Request.parse(words))


if __name__ == "__main__":
    command.run_command(main)
