"""python -m recsys.refresh events=FILE [run=RUN]: trains on, and promotes what is not worse.

The new run starts from the weights of the old one. Both are tested on the latest of the newer
events, and the new one is promoted where it is not worse. `rollback=true` takes that back.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

import sys
from collections.abc import Sequence

from recsys.config.flags import split_flags
from recsys.config.help import format_entries
from recsys.errors import RecsysError
from recsys.refresh.command import KEYS, Request, refresh


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    try:
        line = split_flags(argv)
        if line.help:
            print("usage: python -m recsys.refresh events=FILE [key=value ...]", "", sep="\n")
            print(*format_entries(KEYS.items()), sep="\n")
            return 0
        refresh(Request.parse(line.words))
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    command.run_command(main)
