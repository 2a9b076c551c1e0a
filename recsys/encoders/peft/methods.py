"""Which methods of the PEFT library fit a bare encoder, and their options checked by type."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recsys.config.compose import nearest
from recsys.encoders.peft.injection import REFUSALS
from recsys.errors import ConfigError

METHODS = (
    "beft",
    "boft",
    "c3a",
    "deft",
    "delora",
    "fourierft",
    "frod",
    "gralora",
    "hira",
    "hra",
    "lily",
    "ln_tuning",
    "loha",
    "lokr",
    "miss",
    "oft",
    "peanut",
    "psoft",
    "pvera",
    "randlora",
    "road",
    "shira",
    "supertuning",
    "tinylora",
    "unilora",
    "vblora",
    "vera",
    "waveft",
)
"""Those that start as the pretrained model (VB-LoRA: near it), learn in every added parameter, and
are restored from what they trained: each is held to it by a test. The library has others, and gets
new ones."""

NORMS = ("ln_tuning",)
"""Those among them that tune normalisations in place of linear maps."""

_START = {name: {"init_weights": True} for name in ("c3a", "fourierft")}
"""Where the library's default is a random start, what makes it that of the pretrained model."""

_OWN = {"lora": "lora", "ia3": "ia3", "prefix_tuning": "prefix"}

_EXTRA = {
    "adalora": "moves its ranks in an extra call after every optimiser step and adds to the loss",
    "adamss": "chooses its subspaces in an extra call after every optimiser step",
    "osf": "projects gradients behind the optimiser's back",
    "poly": "needs to be told a task for every text",
    "shadow": "runs a second model beside the encoder",
    "trainable_tokens": "trains rows of the embeddings, and nothing above them",
    "xlora": "mixes LoRA weights that were trained before",
}


def make_peft_config(method: str, options: Mapping[str, Any], targets: list[str]) -> Any:  # noqa: ANN401
    """The configuration of a method: the library's defaults, but a start that changes nothing.

    Args:
        method: Its name in the library, in lower case.
        options: The method's own options.
        targets: Full names of the modules to tune.

    Raises:
        ConfigError: The method is unknown or does not fit, or an option is unknown, of a wrong
            type, out of its range, or not to be set here.
    """
    kind = _find_config_class(method)
    _check_options(method, kind, options)
    _check_values(method, kind, options, targets)
    try:
        return kind(target_modules=targets, **{**_START.get(method, {}), **options})
    except REFUSALS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(f"tuning.options of {method}: {reason}.") from error


def _find_config_class(method: str) -> Any:  # noqa: ANN401 - the library is not typed
    """The configuration class of a method that fits."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    # A method of our own may stand there too, under a plain string.
    known = {str.lower(key): kind for key, kind in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    known.pop("bottleneck", None)
    if not method:
        raise ConfigError(f"tuning=peft needs tuning.method.{nearest('', METHODS)}")
    if method in METHODS and method in known:
        return known[method]
    if method in _OWN:
        raise ConfigError(f"tuning.method={method} has a name of its own: tuning={_OWN[method]}.")
    if method not in known:
        raise ConfigError(f"tuning.method: PEFT has no '{method}'.{nearest(method, METHODS)}")
    if issubclass(known[method], PromptLearningConfig) or method == "adaption_prompt":
        raise ConfigError(
            f"tuning.method={method} puts learned tokens before the text and needs a wrapper made "
            "for generation; tuning=prefix does it in every layer."
        )
    reason = _EXTRA.get(method, "was not seen to start and to be restored as it must")
    raise ConfigError(
        f"tuning.method={method} {reason}; it is not used here. Known: {', '.join(METHODS)}."
    )


def _check_options(method: str, kind: Any, options: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Raises an error for options that the method lacks, or that have another type."""
    from peft import PeftConfig

    shared = {f.name for f in fields(PeftConfig)} | {
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "modules_to_save",
        "bias",
        "fan_in_fan_out",
        "save_projection",
    }
    hints = get_type_hints(kind)
    own = sorted({f.name for f in fields(kind)} - shared)
    for key, value in options.items():
        if key in shared and key in hints:
            raise ConfigError(
                f"tuning.options.{key} cannot be set: tuning.layers and tuning.targets say what is "
                f"tuned. Options of {method}: {', '.join(own)}."
            )
        if key not in own:
            raise ConfigError(
                f"tuning.options.{key} is no option of {method}.{nearest(str(key), own)}"
            )
        if not is_of_type(value, hints[key]):
            raise ConfigError(
                f"tuning.options.{key} is {value!r}, and {method} takes "
                f"{describe_type(hints[key])}."
            )


def _check_values(method: str, kind: Any, options: Mapping[str, Any], targets: list[str]) -> None:  # noqa: ANN401
    """Raises an error for values that PEFT takes and that train nothing, or something else."""
    for key, value in options.items():
        if "dropout" in key and isinstance(value, int | float) and not 0 <= value < 1:
            raise ConfigError(
                f"tuning.options.{key} is {value}; set it from 0 to below 1, the share of "
                f"{method} that is left out of a step."
            )
        # A rank of 0 by default leaves the size to another option (OFT: the block size).
        least = 0 if kind.__dataclass_fields__[key].default == 0 else 1
        if key == "r" and isinstance(value, int) and value < least:
            raise ConfigError(f"tuning.options.r is {value}; set it to {least} or more.")
        patterns = value if key.endswith("_pattern") and isinstance(value, dict) else {}
        for name, number in patterns.items():
            if not is_of_type(number, float):
                raise ConfigError(f"tuning.options.{key} has {number!r} for {name}; give a number.")
            # As PEFT itself matches patterns; one that matches nothing it passes over in silence.
            if not any(re.match(rf"(.*\.)?({name})$", target) for target in targets):
                raise ConfigError(
                    f"tuning.options.{key}: '{name}' names no module that is tuned; there are "
                    f"{', '.join(sorted({t.rpartition('.')[2] for t in targets}))}."
                )


def is_of_type(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type, or a form of typing
    """Whether a plain value is of an annotated type; a whole number is also a float."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(is_of_type(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if hint is type(None) or value is None:
        return hint is type(None) and value is None
    if origin is list:
        return isinstance(value, list) and all(is_of_type(x, inner[0]) for x in value)
    if hint is dict or origin is dict:
        values = value.values() if isinstance(value, dict) else ()
        return isinstance(value, dict) and all(is_of_type(x, inner[1]) for x in values if inner)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (bool, int, str):
        return type(value) is hint
    return False


def describe_type(hint: Any) -> str:  # noqa: ANN401 - a type, or a form of typing
    """An annotated type in words, for an error message."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(one) for one in inner)
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    if hint is type(None):
        return "null"
    if origin is list:
        return f"a list of {describe_type(inner[0])}"
    if origin is dict and inner:
        return f"a mapping to {describe_type(inner[1])}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    return plain.get(hint, "a mapping" if hint is dict or origin is dict else str(hint))
