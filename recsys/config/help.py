"""What `--help` prints of the configuration, wrapped to the terminal."""

from __future__ import annotations

import importlib
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.config.choices import RUN, Root, import_choice, list_choices, list_experiments
from recsys.config.options import Option, list_groups, suggest_key, walk_options
from recsys.config.shipped import Kind, find_file
from recsys.errors import ConfigError

ALL = "all"
"""The word beside `--help` that asks for everything."""

_EXPERIMENT: Kind = "experiment"
_NARROWEST, _WIDEST = 40, 120
_INDENT = "  "


def get_width() -> int:
    """Columns to print into: of the terminal, or 100 where there is none."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, _NARROWEST), _WIDEST)


def format_prose(text: str, indent: str = "") -> list[str]:
    """Paragraphs of a text, wrapped; lines that are indented in it stay as they are."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines += [""] if lines else []
        if any(line.startswith(" ") for line in paragraph.splitlines()):
            lines += [indent + line for line in paragraph.splitlines()]
        else:
            lines += _wrap(" ".join(paragraph.split()), get_width(), indent, indent)
    return lines


def format_entries(entries: Iterable[tuple[str, str]]) -> list[str]:
    """Pairs of a word and what it means, in two columns.

    A word that is wider than its column has its meaning on the next line.
    """
    pairs, width = list(entries), get_width()
    widest = max((len(word) for word, _ in pairs), default=0)
    column = min(widest + 4, 40, max(width * 2 // 5, 8))
    lines = []
    for word, text in pairs:
        head, rest = f"{_INDENT}{word}", " " * column
        if len(head) + 2 > column or not text:
            lines += [head, *_wrap(text, width, rest, rest)] if text else [head]
        else:
            lines += _wrap(text, width, head.ljust(column), rest)
    return lines


def format_names(title: str, names: Iterable[str]) -> list[str]:
    """A list of names after its title."""
    return _wrap(f"{title}{', '.join(names)}", get_width(), "", " " * len(title))


def format_command(usage: str, entries: Iterable[tuple[str, str]]) -> str:
    """The help of a command: its usage, and what its words mean."""
    return "\n".join([usage, "", *format_entries(entries)])


def _wrap(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def format_options(options: Iterable[Option]) -> list[str]:
    """Keys with their defaults, what they do and the values that they take."""
    entries = []
    for option in options:
        values = " | ".join(option.allowed) or option.bounds
        entries.append(
            (f"{option.key}={option.default}", f"{option.text}{f' ({values})' if values else ''}")
        )
    return format_entries(entries)


def format_choice(axis: str, name: str) -> list[str]:
    """A choice of an axis: what it is, and its options.

    Raises:
        ConfigError: There is no such choice.
    """
    config = import_choice(axis, name)
    docstring = inspect.getdoc(importlib.import_module(config.__module__)) or ""
    lines = [f"{axis}={name}", *format_prose(docstring, _INDENT), ""]
    options = [option for _, _, each in walk_options(config, f"{axis}.") for option in each]
    return lines + (format_options(options) if options else [f"{_INDENT}It has no options."])


def format_axis(axis: str) -> list[str]:
    """The choices of an axis."""
    return [f"{axis}:", *format_entries(list_choices(axis).items())]


def format_schema(root: Root = RUN) -> list[str]:
    """Every key of a run, group by group, and the choices of each axis."""
    lines: list[str] = []
    for prefix, _, options in walk_options(root.schema, ""):
        lines += [f"{prefix.rstrip('.')}:" if prefix else "keys of a run:"]
        lines += [*format_options(options), ""]
    for axis in root.axes:
        lines += [*format_axis(axis), ""]
    return lines[:-1]


def format_experiments(root: Root = RUN) -> list[str]:
    """The experiments that can be named, each with the comment that its file begins with."""
    places, names = root.find_folders(), list_experiments(root)
    files = [(name, find_file(_EXPERIMENT, name, places, Path())) for name in names]
    return ["experiments:", *format_entries((name, read_comment(path)) for name, path in files)]


def read_comment(path: Path) -> str:
    """The comment that a file begins with, on one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def format_topics(
    words: Sequence[str], aliases: Mapping[str, str] | None = None, root: Root = RUN
) -> list[str]:
    """What is known of each word that stands beside `--help`; empty where there is none.

    Args:
        words: A choice such as `tuning=lora`, an axis, a group of keys such as `optimizer`, a key
            with or without a value, `experiment`, or an experiment.
        aliases: Other words for keys, as a command takes them.
        root: What the command's words are composed into.

    Raises:
        ConfigError: A word is none of these; the sentence names the nearest key.
    """
    groups = {
        prefix.rstrip("."): options
        for prefix, _, options in walk_options(root.schema, "")
        if prefix
    }
    keys = {option.key: option for _, _, each in walk_options(root.schema, "") for option in each}
    lines: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        key = (aliases or {}).get(key, key)
        axis = next((each for each in root.axes if f"{key}.".startswith(f"{each}.")), None)
        if key in root.axes and value:
            part = format_choice(key, value)
        elif axis is not None:
            part = [*format_axis(axis), "", f"{axis}=NAME --help: its options"]
        elif key == _EXPERIMENT:
            places = root.find_folders()
            file = find_file(_EXPERIMENT, value, places, Path()) if value else None
            part = format_file(file) if file else format_experiments(root)
        elif key in groups:
            part = [*format_prose(f"{key}: {list_groups(root)[key]}"), *format_options(groups[key])]
        elif key in keys:
            part = format_options([keys[key]])
        else:
            known = [name.partition(".")[0] for name in keys]
            hint = suggest_key(key, dict.fromkeys(known), root=root)
            raise ConfigError(f"--help: '{key}' is no key, group or axis.{hint}")
        lines += [*([""] if lines else []), *part]
    return lines


@dataclass(frozen=True)
class Usage:
    """What a command that composes says of itself.

    Attributes:
        line: How it is called.
        entries: What to type, and what it does.
        more: Where to read on.
        own: Words of the command that are no keys.
    """

    line: str
    entries: Sequence[tuple[str, str]]
    more: Sequence[tuple[str, str]]
    own: Sequence[str]


def format_usage(usage: Usage, words: Sequence[str], root: Root = RUN) -> str:
    """What `--help` prints.

    Args:
        usage: Of the command.
        words: What stands beside it: nothing for what to type, `all` for everything, or what is
            to be explained, such as `tuning=lora`.
        root: What the command's words are composed into.

    Raises:
        ConfigError: A word is not known.
    """
    entries = format_entries(usage.entries)
    if ALL in words:
        parts = [[usage.line], entries, format_experiments(root), format_schema(root)]
        return "\n".join("\n".join([*part, ""]) for part in parts).rstrip()
    topics = [word for word in words if word.partition("=")[0] not in usage.own]
    if topics:
        return "\n".join(format_topics(topics, root=root))
    lines = [usage.line, "", *entries, ""]
    lines += format_names("experiment=   ", list_experiments(root))
    for axis in root.axes:
        lines += format_names(f"{axis}=".ljust(14), list_choices(axis))
    return "\n".join([*lines, "", *format_entries(usage.more)])


def format_file(path: Path) -> list[str]:
    """A file as it is, under its path."""
    text = path.read_text(encoding="utf-8").rstrip()
    return [f"{path}:", "", *(f"{_INDENT}{line}".rstrip() for line in text.splitlines())]
