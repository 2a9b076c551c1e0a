"""python -m recsys.fit experiment=NAME key=value ...: compose, train, test, write the result."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config.compose import format_config
from recsys.config.flags import split_flags
from recsys.errors import RecsysError
from recsys.fit.command import find_run, find_seeds, fit
from recsys.fit.parent import follow_parent
from recsys.fit.seeds import run_seeds
from recsys.fit.usage import PRINT_CONFIG, format_usage
from recsys.runtime import excluded_time
from recsys.runtime.rank_errors import write_rank_error
from recsys.runtime.ranks import get_rank
from recsys.runtime.signals import Interrupted
from recsys.words import drop_words


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 128 + signal where one ended the run; else that of the error, which is
        told in one sentence: 2 for a mistake of the user, 3 for a training that diverged, 4 for
        memory that did not suffice.
    """
    folder: Path | None = None
    try:
        line = split_flags(argv, [PRINT_CONFIG])
        if line.help:
            print(format_usage(line.words))
            return 0
        printing = PRINT_CONFIG in line.flags
        several = find_seeds(line.words, planning=not printing)
        if several is not None:
            return run_seeds(several)
        run, folder = find_run(drop_words(line.words, ["seeds"]))
        if printing:
            print(format_config(run), end="")
            return 0
        fit(run, folder)
    except RecsysError as error:
        if get_rank() != 0 and folder is not None:
            # Only the first rank may leave with a code: the launcher kills it after another's.
            write_rank_error(folder, error)
            return 0
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except Interrupted as leave:
        return int(leave.code or 0)
    return 0


if __name__ == "__main__":
    follow_parent()
    excluded_time.mark_command_start()
    command.run_command(main)
