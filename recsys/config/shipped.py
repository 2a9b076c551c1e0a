"""Experiments and sweeps by name or path: those of the working folder, and those recsys ships.

A name is looked up in `./experiments` (or `./sweeps`) first and then among the shipped files, so
that files of one's own stand beside them, and may extend one of the same name. A word that ends in
.yaml or .yml is the path of a file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, get_args

import recsys
from recsys.errors import ConfigError, nearest
from recsys.words import partition_word

Kind = Literal["experiment", "sweep"]

SUFFIXES = (".yaml", ".yml")


def is_path(name: str) -> bool:
    """Whether a word is the path of a file, and not a name that is looked up."""
    return name.endswith(SUFFIXES)


def make_absolute(word: str) -> str:
    """A word that names a file by its path, so that it means the same from any folder.

    Args:
        word: `key=value`; one that names no file comes back as it is.
    """
    key, name = partition_word(word) or ("", "")
    names_file = key in get_args(Kind) and is_path(name)
    return f"{key}={Path(name).absolute()}" if names_file else word


def find_shipped(kind: Kind) -> Path:
    """The folder that recsys ships: inside an installed package, beside it in a checkout."""
    package = Path(recsys.__file__).resolve().parent
    installed = package / "_shipped" / f"{kind}s"
    return installed if installed.is_dir() else package.parent / f"{kind}s"


def find_folders(kind: Kind, first: Path | None = None) -> list[Path]:
    """Where names are looked up, in order, each folder once.

    Args:
        kind: What is looked up.
        first: A folder that comes before the working folder's.
    """
    given = [] if first is None else [first]
    found: dict[Path, Path] = {}
    for folder in (*given, Path(f"{kind}s"), find_shipped(kind)):
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def list_names(folders: Iterable[Path]) -> list[str]:
    """Names that can be looked up, sorted."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def find_file(
    kind: Kind, name: str, folders: Iterable[Path], beside: Path, taken: Collection[Path] = ()
) -> Path:
    """The file that a word names.

    Args:
        kind: What is looked up.
        name: A name, or the path of a file.
        folders: Where a name is looked up, in order.
        beside: The folder from which a path leads.
        taken: Files that extend this one: a name that is both here and shipped means the other.

    Raises:
        ConfigError: There is no such file.
    """
    if is_path(name):
        path = beside / name
        if not path.is_file():
            raise ConfigError(
                f"{kind} '{name}': {path.absolute()} is missing; name a {kind}'s file."
            )
        return path
    places = list(folders)
    found = [path for folder in places if (path := folder / f"{name}.yaml").is_file()]
    if not found:
        looked = " and ".join(str(folder) for folder in places)
        raise ConfigError(
            f"{kind} '{name}' is not known.{nearest(name, list_names(places))} Looked in {looked}; "
            f"a file of your own is named by its path, as in {kind}=my/own.yaml."
        )
    free = [path for path in found if path.resolve() not in taken]
    return (free or found)[0]
