"""python -m recsys.clean list=true | what=KIND,KIND: lists what takes up room, and removes it.

With `list=true` it lists, and removes nothing. With `what=` alone, what is listed is removed once
the question is answered with yes; where nobody can be asked, only with `yes=true`.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

import sys
from collections.abc import Sequence

from recsys.clean.command import KEYS, Request, clean
from recsys.config.flags import split_flags
from recsys.config.help import format_entries
from recsys.errors import RecsysError


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    try:
        line = split_flags(argv)
        if line.help:
            print("usage: python -m recsys.clean [key=value ...]", "", sep="\n")
            print(*format_entries(KEYS.items()), sep="\n")
            return 0
        clean(Request.parse(line.words))
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    command.run_command(main)
