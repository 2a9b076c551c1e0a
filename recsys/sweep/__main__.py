"""python -m recsys.sweep sweep=NAME key=value ...: an Optuna study whose trials are runs."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from recsys.errors import ConfigError, RecsysError
from recsys.sweep import parsing, record
from recsys.sweep.command import expand_resume, find_newest, run_to_end
from recsys.sweep.definition import PRUNERS, SAMPLERS, SweepOptions

USAGE = """usage: python -m recsys.sweep sweep=NAME [key=value ...]
       python -m recsys.sweep resume=FOLDER|last [trials=N] [workers=N]
       python -m recsys.sweep status|page [FOLDER] [details=true]

The same command goes on where it stopped; more trials may be asked for. `status` shows how far a
sweep is, `page` writes its page anew; both take the newest sweep in runs/ without a folder.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0; 1 where a closing run failed; that of the error, which is told in one
        sentence; 128 + signal where one ended the sweep.
    """
    try:
        if not argv or "--help" in argv:
            print(format_usage())
            return 0
        flags = [word for word in argv if word.startswith("--")]
        if flags:
            raise ConfigError(f"{flags[0]} is not a flag; there is --help.")
        if argv[0] in ("status", "page"):
            return _show_sweep(argv[0], argv[1:])
        return run_to_end(expand_resume(argv))
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on.", file=sys.stderr)
        return 130


def format_usage() -> str:
    """What --help prints."""
    lines = [USAGE]
    for f in fields(SweepOptions):
        default = "null" if f.default is None else str(f.default).lower()
        lines.append(f"  {f.name + '=' + default:<24}{f.metadata['help']}")
    lines += ["", "All other keys are those of a run: see python -m recsys.fit --help.", ""]
    lines += ["sweeps:"]
    for name in parsing.list_sweeps():
        first = parsing.find_sweep_file(name).read_text(encoding="utf-8").splitlines()[0]
        lines.append(f"  {name:<22}{first.removeprefix('#').strip()}")
    for title, known in (("samplers", SAMPLERS), ("pruners", PRUNERS)):
        lines += ["", f"{title}:"]
        lines += [f"  {name:<22}{text}" for name, text in known.items()]
    return "\n".join(lines)


def _show_sweep(what: str, words: Sequence[str]) -> int:
    """Shows a sweep as it stands, or writes its page."""
    from recsys.sweep import status
    from recsys.sweep.report import page

    detailed = "details=true" in words
    words = [word for word in words if word not in ("details=true", "details=false")]
    if len(words) > 1 and not all("=" in word for word in words):
        raise ConfigError(f"{what} takes one folder, or the words of the sweep's command.")
    if words and all("=" in word for word in words):
        folder = parsing.read_definition(words).folder
    else:
        folder = Path(words[0]) if words else find_newest("runs")
    sweep = record.read_record(folder)
    if what == "status":
        status.print_status(sweep, details=detailed)
    else:
        print(f"page: {page.write_page(sweep)}")
    return 0


if __name__ == "__main__":
    command.run_command(main)
