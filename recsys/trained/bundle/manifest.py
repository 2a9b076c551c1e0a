"""What a bundle's folder holds, with a checksum a file; nothing of it is code or a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import DataError

MANIFEST = "bundle.json"
"""The file that names all others."""

FORMAT = 1
"""Raised when files change their meaning, so that no reader takes them for what they are not."""

ITEMS = "items.parquet"
"""Item, text and all further columns, in the catalog's order."""
USERS = "users.parquet"
"""User and text, in the order of what they had; missing where a bundle has no users."""
COUNTS = "counts.npy"
"""(I,) positive events of each item in training."""
TRAIN_COUNTS = "train_counts.npy"
"""(I,) the same of the users that train."""
CATALOG = "catalog.npy"
"""(I, ...) what the architecture's `index` gives of each item, where that reads texts."""
VECTORS = "item_vectors.npy"
"""(I, D) vectors that the architecture was given."""
TAGS = "tags.npy"
"""(I, T) numbers of each item's tags, where they are read."""
HISTORY = "history"
"""Folder of what users had: `offsets.npy`, `items.npy`, `labels.npy`."""
STATE = "state"
"""Folder of what the architecture computed of the training events."""
WEIGHTS = "weights.safetensors"
"""What trained, but for what is folded into the encoder."""
ENCODER = "encoder"
"""Folder of the encoder and its tokenizer, as transformers has them."""
QUERIES = "queries.json"
"""Longest history of a query, and the values of its context by column."""
PLAIN = "plain.json"
"""How histories are scored without torch, where that can be; `PLAIN_ARRAYS` has what it reads."""
PLAIN_ARRAYS = "plain"
"""Its folder."""
TEXT = "text.json"
"""How a text is scored with the encoder alone, where that can be; `TEXT_ARRAYS` has the rest."""
TEXT_ARRAYS = "text"
"""Its folder."""
UNIT = "unit"
"""Of the steps that the vector of a text passes, the one that brings it to length 1."""
ADDED = "added"
"""(I,) what the score adds for an item, whatever the text."""
MEMBERS = "members"
"""Folder of the members of an ensemble, each a bundle of its own without users and checksums."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file.

    Attributes:
        sha256: Of its contents, in hex.
        bytes: Its size.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """`bundle.json`.

    Attributes:
        name: What the run is called.
        about: Metrics, fingerprint of the data and versions, as the run's result has them.
        files: Every other file by its path in the folder.
    """

    name: str
    about: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Entry] = field(default_factory=dict)

    @classmethod
    def describe(cls, folder: Path, name: str, about: Mapping[str, Any]) -> Manifest:
        """Of a folder that was just written."""
        files = {
            path.relative_to(folder).as_posix(): Entry(compute_checksum(path), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return cls(name, about, files)

    def format(self) -> str:
        """As JSON, with a checksum of itself."""
        body = {"format": FORMAT, **asdict(self)}
        return json.dumps({**body, "sha256": _hash_body(body)}, indent=1) + "\n"


class BundleFiles:
    """The files of a bundle; each is checked before it is read for the first time.

    Args:
        folder: The bundle.

    Attributes:
        folder: It.
        manifest: What it says of itself.

    Raises:
        DataError: It is none, is of another version, or a file is missing, too many or of another
            size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        self._checked: set[str] = set()
        present = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if not path.is_dir() or path.is_symlink()
        }
        for name in sorted(self.manifest.files.keys() - present):
            raise _refuse(folder, f"{name} is missing")
        for name in sorted(present - self.manifest.files.keys() - {MANIFEST}):
            raise _refuse(folder, f"{name} is no part of it")

    def compute_fingerprint(self) -> str:
        """SHA-256 of what all files hold."""
        return _hash_body({name: entry.sha256 for name, entry in self.manifest.files.items()})

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.manifest.files

    def find(self, name: str) -> Path:
        """A file, once its contents are those that were written.

        Raises:
            DataError: They are others.
        """
        path = self.folder / name
        if name not in self._checked:
            entry = self.manifest.files.get(name)
            if entry is None:
                raise _refuse(self.folder, f"{name} is missing")
            if (
                path.is_symlink()
                or path.stat().st_size != entry.bytes
                or compute_checksum(path) != entry.sha256
            ):
                raise _refuse(self.folder, f"{name} has changed since (its checksum differs)")
            self._checked.add(name)
        return path

    def find_folder(self, name: str) -> Path:
        """A folder, once all files in it are those that were written.

        Raises:
            DataError: One is not.
        """
        for each in self.list_folder(name):
            self.find(each)
        return self.folder / name

    def list_folder(self, name: str) -> list[str]:
        """The files below a folder, by their paths in the bundle."""
        return [each for each in self.manifest.files if each.startswith(f"{name}/")]

    def check(self) -> None:
        """Checks every file.

        Raises:
            DataError: One is not as it was written.
        """
        for name in self.manifest.files:
            self.find(name)


def is_bundle(folder: Path) -> bool:
    """Whether a folder says that it is a bundle."""
    return (folder / MANIFEST).is_file()


def compute_checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _hash_body(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> Manifest:
    """Reads the manifest.

    Raises:
        DataError: It is missing, damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        own, version = body.pop("sha256"), body.pop("format")
        whole = own == _hash_body({"format": version, **body})
        files = {name: Entry(**entry) for name, entry in body.pop("files").items()}
        manifest = Manifest(**body, files=files)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} is no bundle: {MANIFEST} is missing; make one with python -m recsys.export "
            "run=RUN to=FOLDER."
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _refuse(folder, f"{MANIFEST} cannot be read") from None
    if version != FORMAT:
        raise _refuse(folder, f"it has format {version}, and this version reads {FORMAT}")
    if not whole:
        raise _refuse(folder, f"{MANIFEST} has changed since (its checksum differs)")
    return manifest


def _refuse(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: the bundle cannot be used, {what}; make it again from its run.")
