"""What is computed once and shared: folders on disk, named by the content that made them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from recsys.data.files import aside, atomic_folder, write_atomic
from recsys.errors import DataError

KEY_FILE = "key.json"


def default_root() -> Path:
    """The folder of the store: RECSYS_CACHE where it is set, else ~/.cache/recsys."""
    named = os.environ.get("RECSYS_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "recsys"


def canonical(parts: Mapping[str, object]) -> str:
    """The one JSON text of a key, whatever the order of its parts.

    Raises:
        DataError: A part is no JSON value, so that it could not be told from another.
    """
    _check(parts, "key")
    return json.dumps(
        parts, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def _check(value: object, where: str) -> None:
    """Refuses what JSON would change silently (a number as a key) or could not hold.

    Raises:
        DataError: Names the place of the part.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise DataError(f"{where} holds the name {name!r}; use a text as its name")
            _check(part, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            _check(part, f"{where}[{place}]")
    elif isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        raise DataError(f"{where} is {value}, which cannot be part of a key; use a finite number")
    elif not (value is None or isinstance(value, str | int | float)):
        raise DataError(
            f"{where} is a {type(value).__name__}, which cannot be part of a key; "
            "use texts, numbers, lists and dictionaries"
        )


class Store:
    """Folders that are built once per content and shared by runs, trials and processes.

    No lock is held: builders work aside, the first rename wins and the others drop theirs, so a
    process that dies can never block another.

    Args:
        root: Where the folders lie; None means `default_root()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else Path(root)

    def folder(
        self, kind: str, key_parts: Mapping[str, object], build: Callable[[Path], None]
    ) -> Path:
        """The folder of a content, built first where it does not stand yet.

        Args:
            kind: What sort of thing it is, the name of a folder such as "catalog".
            key_parts: All that the content depends on, as JSON values.
            build: Fills the empty folder it is given; it runs at most once in this call.

        Returns:
            The folder, whole, with `key.json` that says what it is.

        Raises:
            DataError: The kind or a part of the key cannot be used, or the disk is full.
        """
        if not kind or kind != Path(kind).name or kind.startswith("."):
            raise DataError(f"store kind {kind!r} is no plain folder name; use letters and digits")
        key = canonical(dict(key_parts))
        path = self.root / kind / hashlib.sha256(key.encode("utf-8")).hexdigest()
        if _whole(path, key):
            return path
        _clear(path, key)
        try:
            with atomic_folder(path) as fresh:
                build(fresh)
                write_atomic(fresh / KEY_FILE, key)
        except DataError:
            # another process was faster: its folder is as good as ours
            if not _whole(path, key):
                raise
        return path


def _whole(path: Path, key: str) -> bool:
    """Whether `path` stands and says that it is `key`; it is written last, so all is there."""
    try:
        return (path / KEY_FILE).read_text(encoding="utf-8") == key
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return False


def _clear(path: Path, key: str) -> None:
    """Takes away a damaged folder (one that lost its key) so that it can be built again."""
    taken = aside(path)
    try:
        path.rename(taken)
    except FileNotFoundError:
        return
    # between our look and our rename another process may have put a whole one in place
    if _whole(taken, key):
        try:
            taken.rename(path)
            return
        except OSError:
            # a third process has put its own there, equal to this one
            if not _whole(path, key):
                raise
    if taken.is_dir():
        shutil.rmtree(taken, ignore_errors=True)
    else:
        taken.unlink()
