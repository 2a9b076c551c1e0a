"""YAML as plain values: what a file or a word says is data, never a reference to something else.

OmegaConf reads `${name}` as an interpolation and `???` as a missing value, wherever they stand. A
title, a path or a tag may hold either, so YAML is read and written here without it, and `shield`
keeps such texts from it where it checks types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, cast

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode

from recsys.errors import ConfigError

Node = dict[str, Any]

# A noncharacter of Unicode, which no text is to hold.
_SHIELD = "\ufdd0"
_TAG = "tag:yaml.org,2002:"
# Which bare words are no text, and the letters that they begin with: YAML 1.1 where numbers of 1.2
# agree with it, so that 3e-4 is one, and 007, 12:30 and a date are none.
_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "bool",
        "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "yYnNtTfFoO",
    ),
    ("null", "~|null|Null|NULL|", "~nN"),
    ("int", "[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+|[-+]?[0-9][0-9_]*\.[0-9_]*"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", "<<", "<"),
)


class _YamlLoader(yaml.SafeLoader):
    """Plain values; keys are names, as they are written, and none is given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(None, None, "a key is a list or a mapping", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
            seen.add(key.value)
            if not key.tag.endswith(":merge"):
                key.tag = f"{_TAG}str"
        return super().construct_mapping(node, deep)


class _YamlDumper(yaml.SafeDumper):
    """What `_YamlLoader` reads as the same values, and quotes where another reader would not."""

    def ignore_aliases(self, data: object) -> bool:
        return True


for _kind, _words, _first in _KINDS:
    for _side in (_YamlLoader, _YamlDumper):
        cast(Any, _side).add_implicit_resolver(
            f"{_TAG}{_kind}", re.compile(f"^(?:{_words})$"), [*_first, *([""] * (_kind == "null"))]
        )
_YamlDumper.add_multi_representer(PurePath, lambda to, path: to.represent_str(str(path)))
_YamlDumper.add_multi_representer(Enum, lambda to, value: to.represent_str(value.name))
_YamlDumper.add_representer(tuple, lambda to, values: to.represent_list(values))


def _parse_yaml(text: str) -> object:
    """A YAML document's values.

    Raises:
        ConfigError: Of the reason alone.
    """
    try:
        return yaml.load(text, _YamlLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ConfigError("lists and mappings lie too deep in each other") from None


def parse_word(text: str) -> object:
    """The value of a `key=value` word: YAML, but that a bare text is taken as it stands.

    In a file ` #` begins a comment; in a path or a title it does not.

    Raises:
        ConfigError: It is no YAML; the reason alone.
    """
    if text in (",", "|", "::", "\t"):  # what may stand between columns, which is no YAML
        return text
    value, bare = _parse_yaml(text), text.strip()
    if (isinstance(value, str) and bare[:1] not in "'\"|>!&") or (
        value is None and bare[:1] == "#"
    ):
        return bare
    return value


@dataclass(frozen=True)
class TypedValue:
    """A number or a truth value of a word, and what was typed: a key of text takes that.

    Attributes:
        value: As YAML reads it.
        text: As it was typed, such as `on`, `007` or the digits of a commit.
    """

    value: object
    text: str

    def __str__(self) -> str:
        return self.text


def parse_typed_word(text: str) -> object:
    """As `parse_word`, with what was typed beside a number or a truth value.

    Raises:
        ConfigError: As `parse_word`.
    """
    value = parse_word(text)
    if isinstance(value, bool | int | float) and text.strip()[:1] not in "!&":
        return TypedValue(value, text.strip())
    return value


def as_word(value: object) -> str:
    """A value as the command line takes it; `parse_word` has it again."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, PurePath):
        return as_word(str(value))
    if isinstance(value, str):
        try:
            same = parse_word(value) == value
        except ConfigError:
            same = False
        # As '{title}', 'null' and '8'.
        return value if same else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def write_words(words: Sequence[str], keys: Mapping[str, object], listed: str = "") -> list[str]:
    """The words of a command that a call has as texts and as keywords.

    Args:
        words: Words as they stand.
        keys: Value by key.
        listed: What stands between the values of a list; empty for a list as YAML has it.

    Raises:
        ConfigError: A word is no text, or a flag.
    """
    for word in words:
        if not isinstance(word, str):
            raise ConfigError(f"{word!r} is no word; give a text such as 'optimizer.lr=3e-4'.")
        if word.startswith("--"):
            raise ConfigError(f"{word} is a flag of the command; give words such as 'seed=1'.")
    out = list(words)
    for key, value in keys.items():
        plain = bool(listed) and isinstance(value, list | tuple)
        text = listed.join(str(each) for each in cast(list[object], value)) if plain else ""
        out.append(f"{key}={text if plain else as_word(value)}")
    return out


def unwrap(value: object) -> object:
    """A value, or a mapping of them, without what was typed."""
    if isinstance(value, dict):
        return {key: unwrap(each) for key, each in value.items()}
    return value.value if isinstance(value, TypedValue) else value


def read_mapping(path: Path) -> Node:
    """A YAML file's mapping; a `ConfigError` says why there is none."""
    try:
        raw = _parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (ConfigError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a YAML mapping that can be read: {reason}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values.")
    return cast(Node, raw)


def format_yaml(node: Node) -> str:
    """Values as YAML, from which `read_mapping` has the same ones again."""
    return yaml.dump(node, Dumper=_YamlDumper, sort_keys=False, allow_unicode=True)


def merge_nodes(below: Node, above: Node) -> Node:
    """Two mappings as one, in which the second wins; lists are replaced."""
    out = dict(below)
    for key, value in above.items():
        before = out.get(key)
        both = isinstance(value, dict) and isinstance(before, dict)
        out[key] = merge_nodes(cast(Node, before), value) if both else value
    return out


def flatten_keys(node: Mapping[str, Any], prefix: str = "") -> Node:
    """A nested mapping as dotted keys."""
    out: Node = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            out |= flatten_keys(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def shield(value: object) -> Any:  # noqa: ANN401
    """A value whose texts OmegaConf takes as they are; `unshield` gives them back."""
    if isinstance(value, str):
        return f"?{_SHIELD}??" if value == "???" else value.replace("${", f"${_SHIELD}{{")
    if isinstance(value, list | tuple):
        return [shield(each) for each in value]
    if isinstance(value, dict):
        return {shield(key): shield(each) for key, each in value.items()}
    return value


def unshield(value: object) -> Any:  # noqa: ANN401
    """What `shield` changed, as it was; a dataclass is changed where it is."""
    if isinstance(value, str):
        return value.replace(f"${_SHIELD}{{", "${").replace(f"?{_SHIELD}??", "???")
    if isinstance(value, list | tuple):
        return type(value)(unshield(each) for each in value)
    if isinstance(value, dict):
        return {unshield(key): unshield(each) for key, each in value.items()}
    if isinstance(value, PurePath):
        return type(value)(unshield(str(value)))
    if is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            setattr(value, f.name, unshield(getattr(value, f.name)))
    return value
