"""MovieLens 100K, fetched on first use, so that a first run needs no preparation."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from recsys.config.schema import SourceConfig, SplitMethod, option
from recsys.data.sources import movielens
from recsys.data.tables import Tables
from recsys.errors import DataError
from recsys.runtime.files import translate_write_errors
from recsys.runtime.store import get_default_root

_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_URL_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
_WHEEL = "recbole==1.2.1"  # carries the set as an example
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_TERMS = "GroupLens' terms: for research, not to be redistributed"
_SECONDS = 120


@dataclass
class Config(SourceConfig):
    """Nothing to set, unless the files are there already."""

    default_split: ClassVar[SplitMethod] = "leave_one_out"
    text_lists: ClassVar[tuple[str, ...]] = ("genres",)

    path: str = option("", "Folder of ml-100k; empty: fetched once into the cache.")
    item_text: str = option("{title} ({year}). {genres}", "Template of an item's text.")
    user_text: str = option(
        "{age}, {gender}, {occupation}", "Template of a user's text; empty: none."
    )


def _download_archive(aside: Path) -> Path:
    """Downloads GroupLens' archive into the folder `aside`."""
    out = aside / "ml-100k.zip"
    with urllib.request.urlopen(_URL, timeout=_SECONDS) as answer, out.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return out


def _download_wheel(aside: Path) -> Path:
    """Downloads RecBole's wheel with pip, without installing it, into the folder `aside`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(aside), _WHEEL]
    subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
    return next(aside.glob("*.whl"))


def _unpack(archive: Path, sha256: str, inside: str, target: Path) -> None:
    """Copies the files directly in the folder `inside` of a zip to the new folder `target`.

    Raises:
        DataError: The checksum differs, or the archive has no such folder.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{archive.name} has the checksum {found}, expected {sha256}")
    target.mkdir()
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            short = name.removeprefix(inside)
            if name.startswith(inside) and short and "/" not in short and "\\" not in short:
                (target / short).write_bytes(file.read(name))
    if not any(target.iterdir()):
        raise DataError(f"{archive.name} has no folder {inside}")


def fetch(into: Path) -> Path:
    """The folder of ml-100k under `into`, fetched if it is not there; complete or absent.

    Raises:
        DataError: Neither place could be reached.
    """
    target = into / "ml-100k"
    if target.is_dir():
        return target
    ways: tuple[tuple[str, Callable[[Path], Path], str, str], ...] = (
        (_URL, _download_archive, _URL_SHA256, "ml-100k/"),
        (f"the wheel {_WHEEL}", _download_wheel, _WHEEL_SHA256, "recbole/dataset_example/ml-100k/"),
    )
    with translate_write_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    failures = []
    for name, download, sha256, inside in ways:
        with tempfile.TemporaryDirectory(dir=into, prefix=".ml-100k-") as aside:
            try:
                archive = download(Path(aside))
                _unpack(archive, sha256, inside, Path(aside) / "new")
            except (OSError, subprocess.SubprocessError, StopIteration, DataError) as error:
                failures.append(f"{name}: {error}")
                continue
            try:
                (Path(aside) / "new").rename(target)
            except OSError:
                # Another process may have been first; its folder is as good.
                if not target.is_dir():
                    raise
        why = f" ({'; '.join(failures)})" if failures else ""
        print(f"MovieLens 100K from {name}{why} is now in {target}. {_TERMS}.")
        return target
    raise DataError(
        f"MovieLens 100K could not be fetched ({'; '.join(failures)}); put the files of "
        f"ml-100k.zip (u.data, u.item, u.user) into {target}, "
        "or set data.source.path to their folder."
    )


def load(cfg: Config) -> Tables:
    """MovieLens 100K from `path`, else from the cache, fetched on first use.

    Raises:
        DataError: It is not there and cannot be fetched, or a file is damaged.
        ConfigError: A template names an unknown column.
    """
    folder = Path(cfg.path) if cfg.path else fetch(get_default_root())
    return movielens.load(movielens.Config(str(folder), cfg.item_text, cfg.user_text))
