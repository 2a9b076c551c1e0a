"""Every option of a run, read off the dataclasses: what help and the reference print."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal

from recsys.config.choices import RUN, Root, import_choice, list_choices
from recsys.config.yaml_file import as_word
from recsys.errors import ConfigError, nearest

_CLOSE = 0.75
"""How alike two names are, of 1, for one to be taken for the other without more to go by."""


@dataclass(frozen=True)
class Option:
    """One key of the configuration.

    Attributes:
        key: As it is typed.
        default: As it would be typed.
        kind: Its type.
        allowed: The words it takes, where these are listed.
        bounds: Its range in words, such as `at least 1`; may be empty.
        text: What it does.
    """

    key: str
    default: str
    kind: object
    allowed: tuple[str, ...]
    bounds: str
    text: str


def walk_options(schema: type, prefix: str) -> Iterator[tuple[str, type, list[Option]]]:
    """Each group of a schema with its own options, the outer ones first.

    Args:
        schema: A dataclass.
        prefix: Before its keys, as in `tuning.`.

    Yields:
        Prefix, dataclass and options of a group.
    """
    hints = typing.get_type_hints(schema)
    groups, own = [], []
    for field in fields(schema):
        kind = hints[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups.append((f"{prefix}{field.name}.", kind))
        else:
            own.append(_make_option(field, kind, prefix))
    yield prefix, schema, own
    for inner, group in groups:
        yield from walk_options(group, inner)


def list_groups(root: Root = RUN) -> dict[str, str]:
    """The groups of a run's keys, or of those of another root, each with what it is about."""
    return {
        prefix.rstrip("."): (schema.__doc__ or "").partition("\n")[0]
        for prefix, schema, _ in walk_options(root.schema, "")
        if prefix
    }


def _make_option(field: Field[Any], kind: object, prefix: str) -> Option:
    default = field.default
    if default is MISSING:
        default = field.default_factory() if callable(field.default_factory) else ""
    if isinstance(default, Mapping) and "name" in default:
        default = default["name"]
    if "grid" in field.metadata:
        kind = (int if field.metadata["whole"] else float) | list[float] | None
    return Option(
        f"{prefix}{field.name}",
        as_word(default),
        kind,
        tuple(map(str, typing.get_args(kind))) if typing.get_origin(kind) is Literal else (),
        _describe_bounds(field.metadata),
        field.metadata.get("help", ""),
    )


def _describe_bounds(metadata: Mapping[str, Any]) -> str:
    least, most = metadata.get("least"), metadata.get("most")
    above, below = metadata.get("above"), metadata.get("below")
    if below is not None and least is not None:
        return f"{least:g} to below {below:g}"
    if above is not None:
        return f"above {above:g}" + ("" if below is None else f", below {below:g}")
    if least is None and most is None:
        return ""
    if most is None:
        return f"at least {least:g}"
    return f"{least:g} to {most:,}" if least is not None else f"at most {most:,}"


def suggest_key(key: str, known: Iterable[str], own: Iterable[str] = (), root: Root = RUN) -> str:
    """A clause that names what an unknown key was meant to be, and what is known in its place.

    One that is spelled alike in the group that was named is what was meant; else one that stands
    elsewhere under the same last name, as optimizer.lr by lr; else one that is spelled alike.

    Args:
        key: The whole key, which is not known.
        known: The keys of its group, without the group.
        own: Keys of the command beside those of a run.
        root: What the command's words are composed into.
    """
    group, _, leaf = key.rpartition(".")
    beside = list(known)
    if group and difflib.get_close_matches(leaf, beside, n=1, cutoff=_CLOSE):
        return nearest(leaf, beside)
    elsewhere = _list_keys(root)
    for key_beside in own:
        elsewhere.setdefault(key_beside, []).append(key_beside)
    if leaf not in elsewhere:
        if difflib.get_close_matches(leaf, beside, n=1):
            return nearest(leaf, beside)
        match = difflib.get_close_matches(leaf, elsewhere, n=1, cutoff=_CLOSE)
        if not match:
            return nearest(leaf, beside)
        leaf = match[0]
    named = " or ".join(f"'{each}'" for each in elsewhere[leaf])
    return f" Did you mean {named}? Known: {', '.join(beside)}."


def _list_keys(root: Root) -> dict[str, list[str]]:
    """Whole keys by their last name: those of a root, and of the choices of each axis.

    The choices' modules are imported, which takes a moment; only an error asks for it.
    """
    found: dict[str, list[str]] = {}
    for _, _, options in walk_options(root.schema, ""):
        for option in options:
            found.setdefault(option.key.rpartition(".")[2], []).append(option.key)
    for axis in root.axes:
        of_axis: dict[str, None] = {}
        for name in list_choices(axis):
            try:
                config = import_choice(axis, name)
            except ConfigError:  # a broken choice is told where it is asked for
                continue
            for _, _, options in walk_options(config, f"{axis}."):
                of_axis |= dict.fromkeys(option.key for option in options)
        for key in of_axis:
            found.setdefault(key.rpartition(".")[2], []).append(key)
    return found
