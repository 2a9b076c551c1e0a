"""What a sentence-transformers folder says of its encoder besides weights; none of it is run.

Reimers and Gurevych 2019. `modules.json` lists what the token states pass: pooling, dense maps and
the norm, each with a folder of its own; prompts and the longest text stand in two other files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recsys.encoders.pretrained.source import ModelFiles, read_json
from recsys.errors import ConfigError

LONGEST = 128
"""Tokens of the longest text, where neither an option nor the folder says less."""

QUERY = ("query",)
ITEM = ("document", "passage", "corpus")

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
LENGTHS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MODES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
"""In the order in which several are put together."""


@dataclass(frozen=True)
class DenseSpec:
    """A dense map of the folder.

    Attributes:
        folder: Its folder within the model's.
        inputs: Width that it takes.
        outputs: Width that it gives.
        bias: Whether it has one.
        activation: Name of the class in `torch.nn`.
        residual: Whether its input is added to its output.
        unit: Whether the length of its input is made 1 first (Normalize before Dense).
    """

    folder: str
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool
    unit: bool = False

    def __str__(self) -> str:
        before = "unit length, " if self.unit else ""
        return f"{before}Dense {self.inputs}->{self.outputs} {self.activation.lower()}"


@dataclass(frozen=True)
class EmbeddingSpec:
    """How texts become vectors: what the options say, else the folder, else the defaults.

    Attributes:
        pooling: Names as in `encoder.pooling`; of several the vectors are put together.
        dense: What the pooled vector passes.
        unit: Whether its length is 1 in the end.
        max_length: Longest text in tokens, special tokens included; None: nothing says so.
        query_prompt: What stands before a text of a user.
        item_prompt: What stands before a text of an item.
        include_prompt: Whether the pooling reads the prompt's tokens.
        lower: Whether texts are put in lower case before anything else.
        ends: Whether the end-of-sequence token is put behind texts where the tokenizer does not.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[DenseSpec, ...] = ()
    unit: bool = False
    max_length: int | None = None
    query_prompt: str = ""
    item_prompt: str = ""
    include_prompt: bool = True
    lower: bool = False
    ends: bool = False

    def describe(self) -> str:
        """In words, for a line."""
        parts = [f"{' and '.join(self.pooling)} pooling", *map(str, self.dense)]
        parts += ["unit length"] if self.unit else []
        parts += [] if self.max_length is None else [f"max {self.max_length} tokens"]
        prompts = {"query": self.query_prompt, "item": self.item_prompt}
        said = [f"{name} {json.dumps(text)}" for name, text in prompts.items() if text]
        left_out = "" if self.include_prompt else " that the pooling leaves out"
        parts += [f"prompts {', '.join(said)}{left_out}"] if said else []
        parts += ["lower case"] if self.lower else []
        parts += ["the end token behind each text"] if self.ends else []
        return ", ".join(parts)


def read_embedding_spec(files: ModelFiles, *, strict: bool = True) -> EmbeddingSpec | None:
    """What the folder of a model says, or None where it is none of sentence-transformers.

    Args:
        files: The model's.
        strict: Whether it is to be followed; if not, None also where it cannot be.

    Raises:
        ConfigError: A file is damaged, or a module is of a kind that is not followed.
    """
    try:
        return _read_embedding_spec(files)
    except ConfigError:
        if strict:
            raise
        return None


def _read_embedding_spec(files: ModelFiles) -> EmbeddingSpec | None:
    listed = files.find_file(MODULES, optional=True)
    if listed is None:
        return None
    pooling: Mapping[str, Any] = {}
    dense: list[DenseSpec] = []
    unit = False
    for place, (kind, folder) in enumerate(read_modules(listed)):
        about = _read_module_config(files, folder, kind)
        if kind == "Pooling":
            pooling = about
        elif kind == "Dense" and about.get("module_input_name", _VECTOR) == _VECTOR:
            dense.append(replace(_parse_dense(listed, folder, about), unit=unit))
            unit = False
        elif kind == "Normalize":
            unit = True
        elif kind != "Dropout" and (kind != "Transformer" or place or folder):
            raise ConfigError(
                f"encoder.model: {listed} has a module {kind} in '{folder}', which is not "
                "followed; set encoder.pooling=mean (or another) to pool the bare model."
            )
    lengths = (files.find_file(name, optional=True) for name in LENGTHS)
    limited = next((path for path in lengths if path is not None), None)
    limits = {} if limited is None else read_json(limited)
    longest = limits.get("max_seq_length") or _read_tokenizer_length(files)
    query, item = _read_prompts(files)
    return EmbeddingSpec(
        pooling=_parse_pooling(listed, pooling),
        dense=tuple(dense),
        unit=unit,
        max_length=longest if isinstance(longest, int) and 0 < longest < _NO_LIMIT else None,
        query_prompt=query,
        item_prompt=item,
        include_prompt=bool(pooling.get("include_prompt", True)),
        lower=bool(limits.get("do_lower_case", False)),
    )


_VECTOR = "sentence_embedding"
_NO_LIMIT = 1_000_000  # tokenizers write a huge number where there is none


def _read_tokenizer_length(files: ModelFiles) -> object:
    """The longest text by the tokenizer's configuration, where it says so."""
    path = files.find_file("tokenizer_config.json", optional=True)
    return None if path is None else read_json(path).get("model_max_length")


def read_modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in listed]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(
            f"encoder.model: {path} is damaged ({type(error).__name__}); download the model again, "
            "or set encoder.pooling=mean (or another) to pool the bare model."
        ) from error


def _read_module_config(files: ModelFiles, folder: str, kind: str) -> Mapping[str, Any]:
    """The configuration of a module; empty where it has none."""
    if kind not in ("Pooling", "Dense"):
        return {}
    path = files.find_file(f"{folder}/config.json")
    if path is None:
        raise ConfigError(
            f"encoder.model: {files.spec} lacks {folder}/config.json, which its {MODULES} names; "
            "download the model again."
        )
    return read_json(path)


def _parse_pooling(path: Path, about: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the poolings, in the order in which they are put together."""
    named = about.get("pooling_mode")
    if named is None:
        return tuple(name for flag, name in FLAGS.items() if about.get(flag)) or ("mean",)
    modes = [named] if isinstance(named, str) else list(named)
    odd = [mode for mode in modes if mode not in MODES]
    if odd or not modes:
        raise ConfigError(
            f"encoder.model: the pooling of {path} is {named!r}; known are {', '.join(MODES)}. "
            "Set encoder.pooling to pool the bare model."
        )
    return tuple(MODES[mode] for mode in modes)


def _parse_dense(path: Path, folder: str, about: Mapping[str, Any]) -> DenseSpec:
    """A dense map by its configuration."""
    # Tanh is what sentence-transformers takes where the file names none.
    activation = str(about.get("activation_function", "torch.nn.modules.activation.Tanh"))
    try:
        return DenseSpec(
            folder,
            int(about["in_features"]),
            int(about["out_features"]),
            bool(about.get("bias", True)),
            activation.rpartition(".")[2],
            bool(about.get("use_residual", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"encoder.model: {path.parent / folder / 'config.json'} is damaged ({error}); download "
            "the model again."
        ) from error


def _read_prompts(files: ModelFiles) -> tuple[str, str]:
    """Prompts of queries and of items; one that is always used stands in for what is not named."""
    path = files.find_file(PROMPTS, optional=True)
    config = {} if path is None else read_json(path)
    known = config.get("prompts") or {}
    if not isinstance(known, dict):
        raise ConfigError(f"encoder.model: the prompts in {path} are no object; correct the file.")
    always = str(known.get(str(config.get("default_prompt_name"))) or "")
    if any(name in known for name in (*QUERY, *ITEM)):
        always = ""
    query, item = (
        next((str(known[name] or "") for name in names if name in known), always)
        for names in (QUERY, ITEM)
    )
    return query, item


def resolve_embedding_spec(
    own: EmbeddingSpec | None,
    pooling: str,
    max_length: int | None,
    query_prompt: str | None,
    item_prompt: str | None,
) -> EmbeddingSpec:
    """How texts become vectors.

    A pooling that is named pools the bare model: nothing else of the folder is followed, as its
    dense maps were made for its own pooling.

    Args:
        own: What the folder says.
        pooling: auto, or a pooling by name; eos is last behind an end-of-sequence token.
        max_length: Longest text in tokens, or None.
        query_prompt: What stands before a text of a user, or None.
        item_prompt: What stands before a text of an item, or None.
    """
    base = own if own is not None and pooling == "auto" else EmbeddingSpec()
    named = "last" if pooling == "eos" else pooling
    return replace(
        base,
        pooling=base.pooling if pooling == "auto" else (named,),
        ends=pooling == "eos",
        max_length=min(LONGEST, base.max_length or LONGEST) if max_length is None else max_length,
        query_prompt=base.query_prompt if query_prompt is None else query_prompt,
        item_prompt=base.item_prompt if item_prompt is None else item_prompt,
    )


def describe_embedding_spec(own: EmbeddingSpec | None, made: EmbeddingSpec, pooling: str) -> str:
    """What is followed and what is not, where there is something to say.

    Args:
        own: What the folder says.
        made: What is followed.
        pooling: The option.
    """
    if own is None:
        told = made.query_prompt or made.item_prompt
        return f"encoder: {made.describe()}" if told else ""
    if pooling != "auto":
        return (
            f"encoder: encoder.pooling={pooling} pools the bare model; the folder's {MODULES} "
            f"({own.describe()}) is not followed"
        )
    out = f"encoder: follows the folder's {MODULES}: {made.describe()}"
    if own.max_length is not None and made.max_length != own.max_length:
        out += f" (the folder's {own.max_length}: encoder.max_length={own.max_length})"
    return out
