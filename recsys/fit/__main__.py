"""python -m recsys.fit experiment=NAME key=value ...: compose, train, test, write the result."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from recsys.config.compose import RunConfig, format_config
from recsys.config.flags import split_flags
from recsys.errors import RecsysError
from recsys.fit.command import find_run, find_seeds, fit
from recsys.fit.parent import follow_parent
from recsys.fit.seeds import run_seeds
from recsys.fit.usage import PRINT_CONFIG, format_usage
from recsys.runs.launch import await_run, check_words, find_earlier, go_on, meet
from recsys.runtime import excluded_time
from recsys.runtime.launching.launches import find_launch
from recsys.runtime.launching.rendezvous import Rendezvous
from recsys.runtime.rank_errors import write_rank_error
from recsys.runtime.ranks import FOLDER, get_rank, join_launch
from recsys.runtime.signals import Interrupted
from recsys.words import drop_words


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 128 + signal where one ended the run; else that of the error, which is
        told in one sentence: 2 for a mistake of the user, 3 for a training that diverged, 4 for
        memory that did not suffice.
    """
    with ExitStack() as held:
        folder: Path | None = None
        try:
            line = split_flags(argv, [PRINT_CONFIG])
            if line.help:
                print(format_usage(line.words))
                return 0
            if PRINT_CONFIG in line.flags:
                find_seeds(line.words, planning=False)
                print(format_config(find_run(drop_words(line.words, ["seeds"]))[0]), end="")
                return 0
            launch = None if FOLDER in os.environ else find_launch()
            held.enter_context(join_launch(launch))
            meeting = held.enter_context(meet(launch))
            if launch is not None:
                check_words(line.words)
            elif (several := find_seeds(line.words, planning=True)) is not None:
                return run_seeds(several)
            shared = _find_shared(line.words, meeting)
            if shared is None:
                return 0
            run, folder = shared
            fit(run, folder, meeting)
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


def _find_shared(
    words: Sequence[str], meeting: Rendezvous | None
) -> tuple[RunConfig, Path | None] | None:
    """The run of this process and its folder, if it has one; None where nothing is left to do.

    Args:
        words: Of the command.
        meeting: Where the processes of another launcher meet, or None.

    Raises:
        RecsysError: A word is wrong, or there is no such run.
    """
    if meeting is not None and get_rank() != 0:
        return await_run(meeting)
    run, folder = find_run(words)
    earlier = None if folder is not None else find_earlier(run, meeting)
    if earlier is None:
        return run, folder
    left = go_on(earlier)
    if left is None:
        print(f"result: {earlier}, of an earlier start of this job")
    return left


if __name__ == "__main__":
    follow_parent()
    excluded_time.mark_command_start()
    command.run_command(main)
