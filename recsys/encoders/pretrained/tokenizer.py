"""A model's tokenizer, and whether it knows the texts it is given."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

from recsys.data.batches.catalog import Catalog
from recsys.encoders.pretrained import source
from recsys.encoders.pretrained.source import ModelFiles
from recsys.encoders.special_tokens import SpecialTokens
from recsys.errors import ConfigError, DataError

REFUSED, WARNED = 0.95, 0.2
"""Shares of unknown tokens: from the first on nothing is left to read, above the second little."""

_PIECES = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
_FILES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json")


def load_tokenizer(files: ModelFiles, *, ends: bool = False) -> Any:  # noqa: ANN401 - no typed base
    """Loads the tokenizer of a model; code in its folder is not run.

    Args:
        files: The model's.
        ends: Whether it is to put the end-of-sequence token behind texts: `add_end_token`.

    Raises:
        ConfigError: The tokenizer is missing, damaged or empty, or has no such token.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            files.where, revision=files.revision or "main", trust_remote_code=False
        )
    except MemoryError:
        raise
    except Exception as error:  # the parsers behind it raise what they like
        raise ConfigError(_describe_failure(files, error)) from error
    vocabulary = loaded.get_vocab()
    if set(vocabulary) <= set(loaded.all_special_tokens) | set(loaded.get_added_vocab()):
        raise ConfigError(
            f"encoder.model: {files.spec} has no tokenizer files (tokenizer.json, or a "
            "vocabulary), so that every word would be unknown; save its tokenizer there with "
            "save_pretrained."
        )
    if not loaded.is_fast:
        raise ConfigError(
            f"encoder.model: the tokenizer of {files.spec} ({type(loaded).__name__}) has no "
            "tokenizer.json and none can be made of it; choose a model with a fast tokenizer."
        )
    if ends:
        add_end_token(loaded, files.spec)
    return loaded


def add_lowercasing(tokenizer: Any) -> None:  # noqa: ANN401 - no typed base
    """Makes a tokenizer read texts in lower case, as a step before all others."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def add_end_token(tokenizer: Any, spec: str) -> None:  # noqa: ANN401 - no typed base
    """Makes a tokenizer put its end-of-sequence token behind texts, where it does not.

    Decoders' tokenizers for the most part do not, and models that pool that token were trained with
    it (Wang et al., Improving Text Embeddings with Large Language Models, ACL 2024, section 3.1).

    Args:
        tokenizer: The tokenizer.
        spec: As in `encoder.model`, for the error message.

    Raises:
        ConfigError: It has no such token.
    """
    from tokenizers import processors

    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            f"encoder.pooling=eos: the tokenizer of {spec} has no end-of-sequence token; set "
            "encoder.pooling=last or mean."
        )
    own = SpecialTokens.from_tokenizer(tokenizer)
    if own.suffix[-1:] == (int(end),):
        return
    around = {"start": own.prefix, "between": own.separators or (), "end": (*own.suffix, int(end))}

    def list_pieces(*names: str) -> list[str]:
        return [name for name in names if name.startswith("$") or around[name]]

    backend = tokenizer.backend_tokenizer
    template: Any = processors.TemplateProcessing(
        single=list_pieces("start", "$A", "end"),
        pair=["$A", "$B"]
        if own.separators is None
        else list_pieces("start", "$A", "between", "$B", "end"),
        special_tokens=[
            {"id": name, "ids": list(ids), "tokens": tokenizer.convert_ids_to_tokens(list(ids))}
            for name, ids in around.items()
            if ids
        ],
    )
    before = json.loads(backend.to_str())["post_processor"] or {}
    steps = before["processors"] if before.get("type") == "Sequence" else [before]
    trimmed = [step["trim_offsets"] for step in steps if step.get("type") == "ByteLevel"]
    if trimmed:  # by which a word's place does not hold the space before it
        level = processors.ByteLevel(trim_offsets=trimmed[0])
        template = processors.Sequence([level, template])
    backend.post_processor = template


def _describe_failure(files: ModelFiles, error: Exception) -> str:
    """Why a tokenizer could not be loaded, from what lies in its folder."""
    spec, folder = files.spec, files.folder
    settings: dict[str, Any] = {}
    for name in _FILES:
        if (folder / name).is_file():
            settings |= source.read_json(folder / name)  # raises for one that is damaged
    if not (folder / "tokenizer.json").is_file():
        pieces = [name for name in _PIECES if (folder / name).is_file()]
        if pieces and importlib.util.find_spec("sentencepiece") is None:
            return (
                f"encoder.model: the tokenizer of {spec} is {pieces[0]}, which sentencepiece "
                "reads; run pip install sentencepiece."
            )
    if "auto_map" in settings | source.read_json(folder / "config.json"):
        return (
            f"encoder.model: the tokenizer of {spec} needs code of its own (auto_map), which is "
            "not run; choose a model that transformers has."
        )
    return source.describe_load_failure("tokenizer", spec, error)


def check_ids(spec: str, tokenizer: Any, rows: int) -> None:  # noqa: ANN401 - no typed base
    """Raises an error for a tokenizer with ids that the model's embeddings do not have.

    Args:
        spec: As in `encoder.model`.
        tokenizer: Its tokenizer.
        rows: Rows of the model's embeddings.

    Raises:
        ConfigError: There are such ids.
    """
    word, last = max(tokenizer.get_vocab().items(), key=lambda item: int(item[1]))
    if last >= rows:
        raise ConfigError(
            f"encoder.model: the tokenizer of {spec} has ids up to {last} ({word!r}) and the "
            f"embeddings have {rows} rows; take the tokenizer that was saved with the weights, or "
            "resize_token_embeddings and save the model."
        )


def check_vocabulary(
    texts: Catalog,
    what: str,
    tokenizer: Any,  # noqa: ANN401 - no typed base
    show: bool,
) -> None:
    """Raises an error where a tokenizer knows next to nothing of texts, warns where little.

    Args:
        texts: Their raw tokens.
        what: Whose they are, for the error message.
        tokenizer: What made them.
        show: Whether to print a warning.

    Raises:
        DataError: Nearly all tokens are unknown.
    """
    share = (
        0.0
        if tokenizer.unk_token_id is None
        else texts.compute_token_share(int(tokenizer.unk_token_id))
    )
    if share <= WARNED:
        return
    line = (
        f"{share:.0%} of the tokens of the {what} texts are unknown to the encoder's tokenizer "
        f"({tokenizer.unk_token})"
    )
    remedy = (
        "choose an encoder of their language or a multilingual one, such as "
        "encoder.model=intfloat/multilingual-e5-small"
    )
    if share >= REFUSED:
        raise DataError(f"{line}: there is nothing to read; {remedy}.")
    if show:
        print(f"warning: {line}; {remedy}", file=sys.stderr)
