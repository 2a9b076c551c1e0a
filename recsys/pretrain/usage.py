"""What `python -m recsys.pretrain --help` prints."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.config import help
from recsys.config.choices import PRETRAINING
from recsys.config.help import ALL

PRINT_CONFIG = "--print-config"
USAGE = f"usage: python -m recsys.pretrain pretraining=NAME [key=value ...] [{PRINT_CONFIG}]"
WORDS = (
    ("pretraining=co_occurrence", "train an encoder on the item texts of data.source"),
    ("experiment=NAME", "what a file of experiments/pretraining/ says"),
    ("... tuning=lora optimizer.lr=1e-3", "the same, with another choice or value"),
    ("resume=RUN", "go on with a stopped pretraining: its folder, or last"),
    (f"... {PRINT_CONFIG}", "only print the resolved configuration"),
    ("python -m recsys.fit ... encoder.model=RUN", "use it: the folder of a pretraining"),
)
MORE = (
    ("pretraining=mlm --help", "a choice: its options with their defaults"),
    ("experiment=NAME --help", "what an experiment sets; experiment --help: all of them"),
    ("optimizer --help", "a group: data, encoder, optimizer, regularization, trainer, ..."),
    (f"--help {ALL}", "every key, choice and experiment"),
)


def format_usage(words: Sequence[str] = ()) -> str:
    """What `--help` prints beside these words; see `recsys.config.help.format_usage`."""
    return help.format_usage(help.Usage(USAGE, WORDS, MORE, ("resume",)), words, PRETRAINING)
