"""What `--help` prints: the schema, read off the dataclasses."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import fields, is_dataclass
from typing import Any, Literal, cast

from recsys.config.compose import AXES, RunConfig, list_choices, list_experiments


def format_help(command: str) -> str:
    """The schema with each field's help, the choices of each axis and the experiments."""
    lines = [f"usage: python -m recsys.{command} [experiment=NAME] [key=value ...]", ""]
    lines += ["  --help          this page", "  --print-config  the resolved configuration"]
    lines += ["  resume=RUN      go on with a stopped run: its folder, or last"]
    if command == "fit":
        lines += ["  seeds=N         N runs with the seeds from `seed` on, in a folder together"]
    lines += [""]
    lines += ["experiments: " + (", ".join(list_experiments()) or "none"), ""]
    lines += _format_group(RunConfig, "")
    for axis in AXES:
        lines += ["", f"{axis}:"]
        lines += [f"  {name:<18}{text}" for name, text in list_choices(axis).items()]
    return "\n".join(lines)


def _format_group(schema: type, prefix: str) -> list[str]:
    """One line a field: its key, default and help."""
    hints = typing.get_type_hints(schema)
    lines = []
    for f in fields(schema):
        if is_dataclass(hints[f.name]):
            lines += _format_group(cast(type, hints[f.name]), f"{prefix}{f.name}.")
            continue
        has_factory = f.default is dataclasses.MISSING
        default = cast(Any, f.default_factory)() if has_factory else f.default
        if isinstance(default, dict) and "name" in default:
            default = default["name"]
        shown = "null" if default is None else str(default)
        kind = hints[f.name]
        allowed = ""
        if typing.get_origin(kind) is Literal:
            allowed = f" ({' | '.join(typing.get_args(kind))})"
        said = f"{f.metadata.get('help', '')}{allowed}"
        lines.append(f"  {prefix + f.name + '=' + shown:<43} {said}")
    return lines
