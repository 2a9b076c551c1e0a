"""python -m recsys.sweep sweep=NAME key=value ...: an Optuna study whose trials are runs."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence

from recsys.config.flags import split_flags
from recsys.errors import ConfigError, RecsysError
from recsys.sweep import parsing, record
from recsys.sweep.command import expand_resume, find_sweep, run_to_end
from recsys.sweep.usage import format_usage
from recsys.words import drop_words, find_value

SHOWN = ("status", "page")
"""What may stand first in place of a key: what to show of a sweep."""


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 1 where a closing run failed; that of the error, which is told in one
        sentence; 128 + signal where one ended the sweep.
    """
    try:
        line = split_flags(argv)
        if line.help:
            print(format_usage([word for word in line.words if word not in SHOWN]))
            return 0
        what, *words = line.words
        if what in SHOWN:
            return _show_sweep(what, words)
        return run_to_end(expand_resume(line.words))
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on.", file=sys.stderr)
        return 130


def _show_sweep(what: str, words: Sequence[str]) -> int:
    """Shows a sweep as it stands, or writes its page."""
    from recsys.sweep import status
    from recsys.sweep.report import page

    detailed = "details=true" in words
    words = [word for word in words if word not in ("details=true", "details=false")]
    output = find_value(words, "output") or "runs"
    if any("=" not in word for word in words):
        words = drop_words(words, ["output"])
    if len(words) > 1 and not all("=" in word for word in words):
        raise ConfigError(f"{what} takes one folder or name, or the words of the sweep's command.")
    if words and all("=" in word for word in words):
        folder = parsing.read_definition(words).folder
    else:
        folder = find_sweep(words[0] if words else "last", output)
    sweep = record.read_record(folder)
    if what == "status":
        status.print_status(sweep, details=detailed)
    else:
        print(f"page: {page.write_page(sweep)}")
    return 0


if __name__ == "__main__":
    command.run_command(main)
