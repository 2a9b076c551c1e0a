"""Pages that are read off the code: the schema, the choices of each axis, what is shipped.

Nothing is restated by hand, so that a new option, choice, experiment or sweep is on the site
without an edit there.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from recsys.config import compose
from recsys.config.choices import PACKAGES, PRETRAINING, RUN
from recsys.config.options import Option, walk_options

ROOT = Path(__file__).resolve().parents[2]


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


def table(options: list[Option]) -> str:
    """Options as a Markdown table."""
    lines = ["| key | default | values | what |", "|---|---|---|---|"]
    for option in options:
        values = ", ".join(filter(None, (_kind(option.kind), option.bounds)))
        cells = (f"`{option.key}`", f"`{option.default}`", values, option.text)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def configuration() -> str:
    """Every key that all runs have, group by group."""
    parts = []
    for prefix, schema, options in walk_options(compose.RunConfig, ""):
        title = prefix.rstrip(".") or "The run"
        parts += [f"## {title}", inspect.getdoc(schema) or "", table(options)]
    return "\n\n".join(parts)


def choices(axis: str) -> str:
    """Each choice of an axis: what it is, its options and the experiments that use it."""
    shipped = _users_of(axis)
    parts = []
    for name in compose.list_choices(axis):
        module = importlib.import_module(f"{PACKAGES[axis]}.{name}")
        parts += [f"### `{name}` {{: #{name} }}", _prose(inspect.getdoc(module) or "")]
        groups = list(walk_options(module.Config, f"{axis}."))
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
    root, read = (
        (RUN, compose.compose) if axis in RUN.axes else (PRETRAINING, compose.compose_pretraining)
    )
    for name in compose.list_experiments(root):
        node: Any = compose.make_node(read([f"experiment={name}"]))
        for key in axis.split("."):
            node = node.get(key) or {}
        found.setdefault(node.get("name", ""), []).append(name)
    return found


def experiments() -> str:
    """Every shipped experiment: its first comment and its file."""
    return _files("experiments", "experiment")


def pretrainings() -> str:
    """The same of pretrainings."""
    return _files("experiments/pretraining", "experiment")


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
    "pretrainings": pretrainings,
    "sweeps": sweeps,
}
"""What `<!-- generated: NAME ARGUMENT ... -->` on a page stands for."""
