"""What `python -m recsys.fit --help` prints."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.config.choices import AXES, list_choices, list_experiments
from recsys.config.help import (
    ALL,
    format_entries,
    format_experiments,
    format_names,
    format_schema,
    format_topics,
)

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
    """What `--help` prints.

    Args:
        words: What stands beside it: nothing for what to type, `all` for everything, or what is
            to be explained, such as `tuning=lora`.

    Raises:
        ConfigError: A word is not known.
    """
    if ALL in words:
        parts = [[USAGE], format_entries(WORDS), format_experiments(), format_schema()]
        return "\n".join("\n".join([*part, ""]) for part in parts).rstrip()
    own = ("seeds", "resume")
    topics = [word for word in words if word.partition("=")[0] not in own]
    if topics:
        return "\n".join(format_topics(topics))
    lines = [USAGE, "", *format_entries(WORDS), ""]
    lines += format_names("experiment=   ", list_experiments())
    for axis in AXES:
        lines += format_names(f"{axis}=".ljust(14), list_choices(axis))
    return "\n".join([*lines, "", *format_entries(MORE)])
