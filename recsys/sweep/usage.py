"""What `python -m recsys.sweep --help` prints."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.config.help import (
    ALL,
    format_entries,
    format_file,
    format_names,
    format_options,
    format_prose,
    format_schema,
    format_topics,
    read_comment,
)
from recsys.config.options import Option, walk_options
from recsys.sweep import parsing
from recsys.sweep.definition import PRUNERS, SAMPLERS
from recsys.sweep.schema import SweepOptions

USAGE = """usage: python -m recsys.sweep sweep=NAME [key=value ...]
       python -m recsys.sweep resume=FOLDER|NAME|last [trials=N] [workers=N]
       python -m recsys.sweep status|page [FOLDER|NAME] [details=true]
"""
ABOUT = (
    "The same command goes on where it stopped; more trials may be asked for. `status` shows how "
    "far a sweep is, `page` writes its page anew; both take the newest sweep in runs/ alone, and "
    "the newest of a name."
)
MORE = (
    ("sweep=NAME --help", "what a sweep searches"),
    ("tuning=lora --help", "a choice of a run: its options with their defaults"),
    (f"--help {ALL}", "every key, sampler, pruner and choice"),
)


def format_usage(words: Sequence[str] = ()) -> str:
    """What `--help` prints.

    Args:
        words: What stands beside it: nothing for what to type, `all` for everything, or what is
            to be explained, such as `sweep=smoke` or `tuning=lora`.

    Raises:
        ConfigError: A word is not known.
    """
    if words and ALL not in words:
        return "\n".join(_explain(words))
    lines = [USAGE, *format_prose(ABOUT), "", "sweeps:", *format_entries(_list_sweeps()), ""]
    if ALL not in words:
        lines += format_names("keys: ", (f"{key}=" for key in _list_options()))
        lines += format_prose("and those of a run, such as trainer.epochs=, for all trials")
        return "\n".join([*lines, "", *format_entries(MORE)])
    lines += ["keys of a sweep:", *format_options(_list_options().values())]
    for title, known in (("samplers", SAMPLERS), ("pruners", PRUNERS)):
        lines += ["", f"{title}:", *format_entries(known.items())]
    return "\n".join([*lines, "", *format_schema()])


def _explain(words: Sequence[str]) -> list[str]:
    """What is known of each word."""
    own, lines = _list_options(), list[str]()
    for word in words:
        key, _, value = word.partition("=")
        if key == "sweep" and value:
            part = format_file(parsing.find_sweep_file(value))
        elif key in own:
            part = format_options([own[key]])
        else:
            part = format_topics([word])
        lines += [*([""] if lines else []), *part]
    return lines


def _list_options() -> dict[str, Option]:
    """The keys of the command beside those of a run."""
    return {option.key: option for _, _, each in walk_options(SweepOptions, "") for option in each}


def _list_sweeps() -> list[tuple[str, str]]:
    return [(name, read_comment(parsing.find_sweep_file(name))) for name in parsing.list_sweeps()]
