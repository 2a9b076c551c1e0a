"""python -m recsys.fit experiment=NAME key=value ...: compose, train, test, write the result."""

from __future__ import annotations

from recsys.runtime import command

command.listen(__name__)


import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.config.compose import to_yaml
from recsys.config.help import help_text
from recsys.errors import ConfigError, RecsysError
from recsys.fit.command import find_run, find_seeds, fit
from recsys.fit.seeds import run_all
from recsys.runs.folder import Leave
from recsys.runtime.parent import follow_parent
from recsys.runtime.rank_errors import leave_note
from recsys.runtime.ranks import rank


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 128 + signal where one ended the run; else that of the error, which is
        told in one sentence: 2 for a mistake of the user, 3 for a training that diverged, 4 for
        memory that did not suffice.
    """
    words = [w for w in argv if not w.startswith("--")]
    flags = {w for w in argv if w.startswith("--")}
    folder: Path | None = None
    try:
        if flags - {"--help", "--print-config"}:
            odd = min(flags - {"--help", "--print-config"})
            raise ConfigError(f"{odd} is not a flag; there are --help and --print-config.")
        if "--help" in flags:
            print(help_text("fit"))
            return 0
        several = find_seeds(words, planning="--print-config" not in flags)
        if several is not None:
            return run_all(several)
        run, folder = find_run([word for word in words if not word.startswith("seeds=")])
        if "--print-config" in flags:
            print(to_yaml(run), end="")
            return 0
        fit(run, folder)
    except RecsysError as error:
        if rank() != 0 and folder is not None:
            # Only the first rank may leave with a code: the launcher kills it after another's.
            leave_note(folder, error)
            return 0
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except Leave as leave:
        return int(leave.code or 0)
    return 0


if __name__ == "__main__":
    follow_parent()
    command.command(main)
