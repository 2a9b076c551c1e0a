"""Values of a configuration that its types allow and that cannot be used."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from types import NoneType
from typing import Any, cast

from recsys.config.yaml_file import TypedValue, unwrap
from recsys.errors import ConfigError
from recsys.words import LARGEST


def check_betas(betas: Sequence[float]) -> None:
    """Refuses decay rates of AdamW of a wrong number or out of their range."""
    if len(betas) != 2:
        raise ConfigError(f"optimizer.betas takes two numbers, not {len(betas)}.")
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"optimizer.betas is {betas}; set both from 0 to below 1.")


def check_cutoffs(ks: Sequence[int]) -> None:
    """Refuses cut-offs of metrics that are no different whole numbers."""
    if not ks or len(set(ks)) != len(ks) or min(ks) < 1 or max(ks) > LARGEST:
        raise ConfigError(
            f"evaluation.k is {ks}; give one or more different whole numbers from 1, as in "
            "evaluation.k=[10,20]."
        )


def normalize_value(value: object, field: Field[Any], kind: object, key: str) -> object:
    """A value as its field has it, however it was spelled.

    Nothing at all, `null` and two quotes are one where a key may be empty. YAML 1.1 reads `on` and
    `off` as truth values; some values go by another word as well.

    Args:
        value: As it was read.
        field: Of the schema.
        kind: Its type.
        key: The whole key, for messages.

    Raises:
        ConfigError: A key that takes a text is empty, or a list or a mapping is none.
    """
    origin, allowed = typing.get_origin(kind), typing.get_args(kind)
    if "grid" in field.metadata:
        return _normalize_grid(key, unwrap(value), field.metadata["whole"])
    if isinstance(value, TypedValue):
        # A key of a text or a number, as tuning.layers, takes the number.
        number = type(value.value) in allowed and not isinstance(value.value, bool)
        value = value.text if str in (kind, *allowed) and not number else value.value
    if origin in (list, dict):
        return _normalize_container(key, unwrap(value), origin, allowed[-1])
    if value is None and kind is str:
        if not can_be_empty(field):
            raise ConfigError(f"{key} is empty; give it a value, or leave it out.")
        return ""
    if value == "" and NoneType in allowed and (str not in allowed or field.metadata.get("blank")):
        return None
    word = "on" if value else "off"
    if isinstance(value, bool) and bool not in allowed and word in allowed:
        return word
    if isinstance(value, str):
        return field.metadata.get("also", {}).get(value, value)
    return value


def can_be_empty(field: Field[Any]) -> bool:
    """Whether a key that takes a text takes none as well: its default or its help says so."""
    return field.default == "" or "empty:" in field.metadata.get("help", "")


def _normalize_container(key: str, value: object, kind: type, inner: object) -> object:
    """A list or a mapping; nothing at all is an empty one, a single value is refused.

    So is another container among values of the type `inner` that is none; OmegaConf takes it.
    """
    if value is None or value == "":
        return kind()
    if isinstance(value, kind):
        values = value.values() if isinstance(value, dict) else cast(Iterable[object], value)
        for each in values:
            if isinstance(each, list | dict) and inner in (str, int, float, bool):
                raise ConfigError(
                    f"{key} holds '{shorten(each)}'; write a single value, in quotes where it has "
                    "brackets of its own."
                )
        return value
    shown = "{NAME: VALUE}" if kind is dict else "[A, B]"
    if kind is list and not isinstance(value, dict):
        shown = f"[{value}]"
    what = "a mapping" if kind is dict else "a list"
    raise ConfigError(f"{key} takes {what}; write {key}={shown}.")


def _normalize_grid(key: str, value: object, whole: bool) -> object:
    """A number, a list of different numbers, or None.

    Raises:
        ConfigError: It is nothing of the sort.
    """
    if value is None or value == "":
        return None
    kind, what = (int, "whole number") if whole else (float, "number")
    numbers: list[float] = []
    for each in value if isinstance(value, list) else [value]:
        number = each if isinstance(each, int | float) and not isinstance(each, bool) else None
        if number is None or (whole and number != number // 1):
            held = "holds" if isinstance(value, list) else "is"
            raise ConfigError(
                f"{key} {held} '{shorten(each)}'; set it to a {what}, to a list of them to choose "
                "among on validation, or to null for a grid of its own."
            )
        if isinstance(number, int) and abs(number) > LARGEST:
            raise ConfigError(f"{key}: {shorten(number)} is too large; stay within {LARGEST}.")
        numbers.append(kind(number) if math.isfinite(number) else number)
    if not isinstance(value, list):
        return numbers[0]
    if not numbers or len(set(numbers)) < len(numbers):
        wrong = "is an empty list" if not numbers else f"{numbers} holds a number twice"
        raise ConfigError(f"{key} {wrong}; give each {what} to choose among once.")
    return numbers


def check_ranges(config: object, prefix: str) -> None:
    """Refuses numbers outside the range of a field."""
    for f in fields(cast(Any, config)):
        value = getattr(config, f.name)
        if is_dataclass(value):
            check_ranges(value, f"{prefix}{f.name}.")
        elif "grid" in f.metadata and isinstance(value, list):
            for each in value:
                remedy = _describe_remedy(each, f.metadata)
                if remedy or not math.isfinite(each):
                    raise ConfigError(
                        f"{prefix}{f.name}={value} holds {each}; set it "
                        f"{remedy or 'to a finite number'}."
                    )
        elif type(value) is int and abs(value) > LARGEST and f.metadata.get("most") is None:
            raise ConfigError(f"{prefix}{f.name} is {value}; set it to {LARGEST} or less.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{prefix}{f.name} is {value}; set it to a finite number.")
        elif isinstance(value, int | float) and (remedy := _describe_remedy(value, f.metadata)):
            raise ConfigError(f"{prefix}{f.name} is {value}; set it {remedy}.")


def _describe_remedy(value: float, metadata: Mapping[str, Any]) -> str:
    """Where a number may lie, as "to 1 or more", if it does not; else empty."""
    least, most = metadata.get("least"), metadata.get("most")
    above, below = metadata.get("above"), metadata.get("below")
    low = (least is not None and value < least) or (above is not None and value <= above)
    high = (most is not None and value > most) or (below is not None and value >= below)
    if not low and not high:
        return ""
    if below is not None and least is not None:
        return f"from {least:.15g} to below {below:.15g}"
    if low:
        return f"above {above:.15g}" if above is not None else f"to {least:.15g} or more"
    return f"below {below:.15g}" if below is not None else f"to {most:.15g} or less"


TEMPLATE = re.compile(r"\{[^{}:,]+\}")
"""What a text begins with that YAML takes for a mapping."""


def describe_quoting(key: str, text: str) -> str:
    """What to write where a text begins with a brace."""
    return f"a text that begins with a brace needs quotes of its own, as in {key}=\"'{text}'\""


def describe_non_text(key: str, reason: str) -> str | None:
    """The sentence on a mapping or a list where a text is wanted; None for another reason.

    Args:
        key: The whole key.
        reason: What OmegaConf says.
    """
    held = reason.partition(": ")[2].strip("'")
    if "'ListConfig' to string" in reason:
        return f"a text is wanted here, and {held} is a list"
    if "'DictConfig' to string" not in reason:
        return None
    # {title} alone is a YAML mapping without values.
    alone = re.fullmatch(r"\{'([^']*)': None\}", held)
    if alone is not None:
        return describe_quoting(key, f"{{{alone[1]}}}")
    return f"a text is wanted here, and {held} is a mapping"


_WANTED = {
    "Integer": "a whole number",
    "Float": "a number",
    "Union[int, float]": "a number",
    "bool": "true or false",
}
_WRONG = re.compile(
    r"Value '(.*)' (?:of type '\w+' (?:could not be converted to|is incompatible with type hint) "
    r"'?(?:Optional\[)?(Integer|Float|Union\[int, float\])\]?'?|is not a valid (bool)\b.*)",
    re.DOTALL,
)


def describe_wrong_type(key: str, reason: str) -> str | None:
    """The sentence on a number or a truth value that is none; None for another reason.

    Args:
        key: The whole key.
        reason: What OmegaConf says.
    """
    match = _WRONG.match(reason)
    if match is None:
        return None
    value, number, truth = match.groups()
    return f"{key} is '{shorten(value)}'; set it to {_WANTED[number or truth]}."


def shorten(value: object) -> str:
    """A value in a sentence, cut where it is long."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
