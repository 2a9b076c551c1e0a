"""python -m recsys.pretrain pretraining=NAME key=value ...: trains an encoder on item texts."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence

from recsys.config.compose import format_config
from recsys.config.flags import split_flags
from recsys.errors import RecsysError
from recsys.pretrain.command import find_pretraining, pretrain
from recsys.pretrain.usage import PRINT_CONFIG, format_usage
from recsys.runtime import excluded_time
from recsys.runtime.signals import Interrupted


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 128 + signal where one ended the run; else that of the error, which is
        told in one sentence: 2 for a mistake of the user, 3 for a training that diverged, 4 for
        memory that did not suffice.
    """
    try:
        line = split_flags(argv, [PRINT_CONFIG])
        if line.help:
            print(format_usage(line.words))
            return 0
        run, folder = find_pretraining(line.words)
        if PRINT_CONFIG in line.flags:
            print(format_config(run), end="")
            return 0
        pretrain(run, folder)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except Interrupted as leave:
        return int(leave.code or 0)
    return 0


if __name__ == "__main__":
    excluded_time.mark_command_start()
    command.run_command(main)
