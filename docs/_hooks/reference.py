"""Pages that are read off the code: the schema, the choices of each axis, what is shipped.

Nothing is restated by hand, so that a new option, choice, experiment or sweep is on the site
without an edit there.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.config import compose
from recsys.config.compose import AXES

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Option:
    """One key of the configuration.

    Attributes:
        key: As it is typed.
        default: As YAML would have it.
        kind: Its values.
        text: What it does.
    """

    key: str
    default: str
    kind: str
    text: str


def walk(schema: type, prefix: str) -> Iterator[tuple[str, type, list[Option]]]:
    """Each group of a schema with its own options, the outer ones first.

    Args:
        schema: A dataclass.
        prefix: Before its keys, as in `tuning.`.

    Yields:
        Prefix, dataclass and options of a group.
    """
    hints = typing.get_type_hints(schema)
    groups, own = [], []
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            groups.append((f"{prefix}{field.name}.", kind))
        else:
            own.append(_option(field, kind, prefix))
    yield prefix, schema, own
    for inner, kind in groups:
        yield from walk(kind, inner)


def _option(field: dataclasses.Field[Any], kind: object, prefix: str) -> Option:
    default = field.default
    if default is dataclasses.MISSING:
        default = field.default_factory() if callable(field.default_factory) else ""
    if isinstance(default, Mapping) and "name" in default:
        default = default["name"]
    values = f"{_kind(kind)}{_range(field.metadata)}"
    return Option(f"{prefix}{field.name}", _shown(default), values, field.metadata.get("help", ""))


def _shown(value: object) -> str:
    """A default as it would be typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return '""' if value == "" else str(value)


def _kind(kind: object) -> str:
    """A type in a reader's words."""
    plain: dict[object, str] = {int: "integer", float: "number", str: "text", bool: "true, false"}
    plain |= {type(None): "null", Any: "a choice of the axis"}
    if kind in plain:
        return plain[kind]
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    return " or ".join(_kind(argument) for argument in arguments)


def _range(metadata: Mapping[str, Any]) -> str:
    least, most = metadata.get("least"), metadata.get("most")
    if least is None and most is None:
        return ""
    if most is None:
        return f", at least {least:g}"
    return f", {least:g} to {most:,}" if least is not None else f", at most {most:,}"


def table(options: list[Option]) -> str:
    """Options as a Markdown table."""
    lines = ["| key | default | values | what |", "|---|---|---|---|"]
    for option in options:
        cells = (f"`{option.key}`", f"`{option.default}`", option.kind, option.text)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def configuration() -> str:
    """Every key that all runs have, group by group."""
    parts = []
    for prefix, schema, options in walk(compose.RunConfig, ""):
        title = prefix.rstrip(".") or "The run"
        parts += [f"## {title}", inspect.getdoc(schema) or "", table(options)]
    return "\n\n".join(parts)


def choices(axis: str) -> str:
    """Each choice of an axis: what it is, its options and the experiments that use it."""
    shipped = _users_of(axis)
    parts = []
    for name in compose.list_choices(axis):
        module = importlib.import_module(f"{AXES[axis]}.{name}")
        parts += [f"### `{name}` {{: #{name} }}", _prose(inspect.getdoc(module) or "")]
        groups = list(walk(module.Config, f"{axis}."))
        parts += [table(options) for _, _, options in groups if options]
        if not any(options for _, _, options in groups):
            parts.append("No options of its own.")
        if shipped.get(name):
            links = [f"[`{each}`](experiments.md#{each})" for each in shipped[name]]
            parts.append(f"Experiments: {', '.join(links)}.")
    return "\n\n".join(parts)


def _users_of(axis: str) -> dict[str, list[str]]:
    """Choice to the shipped experiments that compose to it."""
    found: dict[str, list[str]] = {}
    for name in compose.list_experiments():
        node: Any = compose.make_node(compose.compose([f"experiment={name}"]))
        for key in axis.split("."):
            node = node.get(key) or {}
        found.setdefault(node.get("name", ""), []).append(name)
    return found


def experiments() -> str:
    """Every shipped experiment: its first comment and its file."""
    return _files("experiments", "experiment")


def sweeps() -> str:
    """Every shipped sweep: its first comment and its file."""
    return _files("sweeps", "sweep")


def _files(folder: str, key: str) -> str:
    parts = []
    for path in sorted((ROOT / folder).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.lstrip("# ") for line in lines if line.startswith("#")]
        rest = "\n".join(line for line in lines if not line.startswith("#"))
        parts += [f"### `{key}={path.stem}` {{: #{path.stem} }}", " ".join(comments)]
        parts.append(f"```yaml\n{rest}\n```")
    return "\n\n".join(parts)


def _prose(docstring: str) -> str:
    """A docstring as Markdown: a line break there is none here."""
    return docstring.replace("<", "&lt;")


PARTS: Mapping[str, Callable[..., str]] = {
    "configuration": configuration,
    "choices": choices,
    "experiments": experiments,
    "sweeps": sweeps,
}
"""What `<!-- generated: NAME ARGUMENT ... -->` on a page stands for."""
