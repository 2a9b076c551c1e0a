"""What differs between the configurations of two runs."""

from __future__ import annotations

from pathlib import Path

from recsys.config.yaml_file import Node, flatten_keys, read_mapping
from recsys.errors import ConfigError
from recsys.runtime.files import CONFIG

ABSENT = "-"
"""Shown where a run has no such key."""


def read_config(folder: Path) -> Node:
    """The dotted keys of a run's `config.yaml`, as the file has them.

    The file is not composed again: a run of another version has keys that this one may not know.

    Raises:
        ConfigError: The folder holds no configuration that can be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"{path} is missing; name the folder of a run.")
    return flatten_keys(read_mapping(path))


def find_differences(left: Path, right: Path) -> list[tuple[str, str, str]]:
    """(key, left, right) of every key with different values, in the order of the files."""
    a, b = read_config(left), read_config(right)
    keys = list(dict.fromkeys([*a, *b]))
    shown = [(key, _format_value(a, key), _format_value(b, key)) for key in keys]
    return [row for row in shown if row[1] != row[2]]


def _format_value(node: Node, key: str) -> str:
    if key not in node:
        return ABSENT
    value = node[key]
    return "null" if value is None else str(value)


def format_rows(rows: list[tuple[str, str, str]]) -> list[str]:
    """The rows, at least one, in three columns, ready to print."""
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    return [f"{key:<{widths[0]}}  {left:<{widths[1]}}  {right}" for key, left, right in rows]
