"""python -m recsys.clean list=true | what=KIND,KIND: lists what takes up room, and removes it.

With `list=true` it lists, and removes nothing. With `what=` alone, what is listed is removed once
the question is answered with yes; where nobody can be asked, only with `yes=true`.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Sequence

from recsys.clean.command import KEYS, Request, clean
from recsys.config.flags import run_words
from recsys.config.help import format_command

USAGE = "usage: python -m recsys.clean [key=value ...]"


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(
        argv,
        lambda _: format_command(USAGE, KEYS.items()),
        lambda words: clean(Request.parse(words)),
    )


if __name__ == "__main__":
    command.run_command(main)
