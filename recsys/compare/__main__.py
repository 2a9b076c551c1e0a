"""python -m recsys.compare RUN RUN ...: which method, at what cost, and is the difference real."""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)


import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.compare.command import FILES, KEYS, run_comparison
from recsys.config.compose import nearest
from recsys.errors import ConfigError, RecsysError
from recsys.words import partition_word

FLAGS = ("--help", "--config-diff")


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    flags = [word for word in argv if word.startswith("--")]
    words = [word for word in argv if not word.startswith("--")]
    try:
        for flag in flags:
            if flag not in FLAGS:
                raise ConfigError(f"{flag} is not a flag.{nearest(flag, FLAGS)}")
        if "--help" in flags:
            print(format_usage())
        elif "--config-diff" in flags:
            print(*diff_configs(words), sep="\n")
        else:
            run_comparison(words)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


def format_usage() -> str:
    """What `--help` prints."""
    lines = ["usage: python -m recsys.compare RUN RUN ... [key=value ...]", ""]
    lines += ["  RUN                  folder of a run, folder of runs, or a glob such as 'runs/*'"]
    lines += [f"  {key + '=':<21}{text}" for key, text in KEYS.items()]
    lines += ["  --config-diff A B    print what differs between the configurations of two runs"]
    lines += ["  --help               this page", "", f"writes {', '.join(FILES)} into the output"]
    return "\n".join(lines)


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
