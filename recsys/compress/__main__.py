"""python -m recsys.compress run=RUN [layers=N|static] [width=N] [vectors=int8]: makes a run small.

What comes out is a run like any other: it is tested on the same cases, and recommend, export, serve
and compare read it.
"""

from __future__ import annotations

from recsys.runtime import command

command.exit_on_interrupt(__name__)

from collections.abc import Sequence
from pathlib import Path

from recsys.config.compose import nearest
from recsys.config.flags import run_words
from recsys.config.help import format_command
from recsys.errors import ConfigError, raise_file_error
from recsys.runtime import excluded_time
from recsys.words import split_words

USAGE = "usage: python -m recsys.compress run=FOLDER|last [key=value ...]"
KEYS = {
    "run=FOLDER": "a finished run of two_tower on texts; last: the newest one; a glob: the newest "
    "of those",
    "layers=all": "layers of the encoder that stay, or static: a vector a token; what is another "
    "encoder learns the run's own vectors and scores",
    "width=full": "numbers of a vector that stay, the first of a basis in which they say most",
    "vectors=fp32": "how vectors of items are stored: fp32, int8, binary or binary+int8",
    "pool=same": "with binary+int8: items that are scored again; same: architecture.pool of the "
    "run",
    "steps=300": "of the distillation",
    "batch=64": "texts of a step",
    "lr=1e-4": "learning rate of the layers",
    "seed=0": "draws the texts of a step",
    "output=runs": "where the new run's folder is made, and where run=last looks",
}


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit code: 0, or that of the error, which is told in one sentence.
    """
    return run_words(argv, lambda _: format_command(USAGE, KEYS.items()), _compress)


def _compress(words: Sequence[str]) -> None:
    compress_words(words)


@raise_file_error()
def compress_words(words: Sequence[str]) -> Path:
    """Makes a run smaller, by the words of the command.

    Returns:
        The new run's folder.

    Raises:
        ConfigError: A word is wrong, or the run cannot be made so.
    """
    values = split_words(words, "layers=3")
    known = [key.partition("=")[0] for key in KEYS]
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{key} is not a known key.{nearest(key, known)}")
        if not value.strip():
            raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
    if "run" not in values:
        raise ConfigError("name a finished run: run=FOLDER; --help says more.")

    from recsys.trained.compression.settings import CompressionSettings, check_compressible
    from recsys.trained.run import load

    name, output = values.pop("run"), values.pop("output", "runs")
    settings = CompressionSettings.parse(values)
    run = load(name, output)
    check_compressible(run.config, settings, str(run.folder))

    from recsys.trained.compression.run import compress

    return compress(run, settings, output)


if __name__ == "__main__":
    excluded_time.mark_command_start()
    command.run_command(main)
