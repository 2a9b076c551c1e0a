"""python -m recsys.compare RUN RUN ...: which method, at what cost, and is the difference real."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.compare.command import FILES, KEYS, run_comparison
from recsys.config.flags import split_flags
from recsys.config.help import ALL, format_entries, format_names, format_prose
from recsys.errors import ConfigError, RecsysError
from recsys.words import partition_word

CONFIG_DIFF = "--config-diff"


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    try:
        line = split_flags(argv, [CONFIG_DIFF])
        if line.help:
            print(format_usage(detailed=ALL in line.words))
        elif CONFIG_DIFF in line.flags:
            print(*diff_configs(line.words), sep="\n")
        else:
            run_comparison(line.words)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def format_usage(detailed: bool) -> str:
    """What `--help` prints.

    Args:
        detailed: Also what each key does.
    """
    lines = ["usage: python -m recsys.compare RUN RUN ... [key=value ...]", ""]
    lines += format_prose(
        "Which method is best, at what cost, and is the difference real: prints a verdict and a "
        f"table, and writes {', '.join(FILES)} into a folder."
    )
    words = [
        ("RUN", "folder of a run, folder of runs, or a glob such as 'runs/*'"),
        (
            "baseline=frozen margin=0.5",
            "compare with that method, and test whether less than 0.5 points apart",
        ),
        (f"{CONFIG_DIFF} A B", "print what differs between the configurations of two runs"),
    ]
    if detailed:
        words += [(f"{key}=", text) for key, text in KEYS.items()]
        return "\n".join([*lines, "", *format_entries(words)])
    words.append((f"--help {ALL}", "what each key does"))
    keys = format_names("keys: ", (f"{key}=" for key in KEYS))
    return "\n".join([*lines, "", *format_entries(words), "", *keys])


def diff_configs(words: Sequence[str]) -> list[str]:
    """Key, left and right of all that differs between two runs.

    Raises:
        ConfigError: Not two runs, or one that cannot be read.
    """
    from recsys.compare.config_diff import find_differences, format_rows

    for word in words:
        if (partition_word(word) or ("",))[0] in KEYS and not Path(word).exists():
            raise ConfigError(
                f"--config-diff takes the folders of two runs and no keys; leave out {word}."
            )
    if len(words) != 2:
        raise ConfigError(f"--config-diff takes the folders of two runs, not {len(words)}.")
    rows = find_differences(Path(words[0]), Path(words[1]))
    return format_rows(rows) if rows else ["no difference"]


if __name__ == "__main__":
    command.run_command(main)
