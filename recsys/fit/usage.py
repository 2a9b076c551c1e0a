"""What `python -m recsys.fit --help` prints."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.config import help
from recsys.config.help import ALL

PRINT_CONFIG = "--print-config"
USAGE = f"usage: python -m recsys.fit experiment=NAME [key=value ...] [{PRINT_CONFIG}]"
WORDS = (
    ("experiment=lora_two_tower", "train and test what a file of experiments/ says"),
    ("... tuning=adapter optimizer.lr=1e-3", "the same, with another choice or value"),
    ("... seeds=3", "three runs with the seeds from `seed` on"),
    ("resume=RUN", "go on with a stopped run: its folder, or last"),
    (f"... {PRINT_CONFIG}", "only print the resolved configuration"),
)
MORE = (
    ("tuning=lora --help", "a choice: its options with their defaults"),
    ("experiment=NAME --help", "what an experiment sets; experiment --help: all of them"),
    ("optimizer --help", "a group: data, encoder, optimizer, regularization, trainer, ..."),
    (f"--help {ALL}", "every key, choice and experiment"),
)


def format_usage(words: Sequence[str] = ()) -> str:
    """What `--help` prints beside these words; see `recsys.config.help.format_usage`."""
    return help.format_usage(help.Usage(USAGE, WORDS, MORE, ("seeds", "resume")), words)
