"""Where a user's id stands, and how it is taken out of each place."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config.yaml_file import flatten_keys, read_mapping
from recsys.errors import DataError
from recsys.models.queries.stored import OWNERS, drop_users
from recsys.runtime.files import (
    CASES,
    CONFIG,
    PREPARED,
    RESULT,
    make_temporary_path,
    open_atomic_folder,
    write_atomic,
)
from recsys.runtime.locks import acquire_lock, is_locked
from recsys.trained.bundle import manifest
from recsys.trained.bundle.manifest import BundleFiles, Manifest

EVENTS, PEOPLE = "interactions.parquet", "users.parquet"


@dataclass(frozen=True)
class Place:
    """A file or folder in which users stand.

    Attributes:
        path: It.
        kind: "data", "feedback", "bundle" or "cases".
        rows: How many rows of them it has.
    """

    path: Path
    kind: str
    rows: int

    def check(self) -> None:
        """Raises where it cannot be changed now, before anything else is.

        Raises:
            DataError: A service writes to it.
        """
        if self.kind == "feedback" and any(map(is_locked, _list_locks(self.path))):
            raise _make_busy_error(self.path)

    def forget(self, users: Collection[str]) -> None:
        """Takes the users out; the file or folder is the old one or the new one at any time.

        Raises:
            DataError: It cannot be read or written, or a service writes to it.
        """
        {"data": _clear_data, "feedback": _clear_feedback, "bundle": _clear_bundle}.get(
            self.kind, _clear_cases
        )(self.path, users)


def find_places(roots: Sequence[Path], users: Collection[str]) -> list[Place]:
    """The places below some folders in which users stand; links are not followed.

    Args:
        roots: Folders, or single files of feedback.
        users: Their ids.

    Raises:
        DataError: A file that should have users cannot be read.
    """
    places = []
    for kind, path in _walk(roots):
        if kind == "data":
            events, people = _count(path / EVENTS, users), _count(path / PEOPLE, users)
            rows = events + people
        elif kind == "bundle":
            rows = _count(path / manifest.USERS, users)
        elif kind == "cases":
            rows = _count(path, users)
        else:
            rows = sum(_is_of(line, users) for line in path.read_bytes().splitlines())
        if rows:
            places.append(Place(path, kind, rows))
    return places


def find_untouched(roots: Sequence[Path]) -> list[str]:
    """What may hold users and cannot be changed, a sentence each: sources, weights, caches."""
    sources: set[str] = set()
    learned = 0
    for root in roots:
        for config in [root / CONFIG, *root.rglob(CONFIG)] if root.is_dir() else []:
            if not config.is_file():
                continue
            learned += (config.parent / RESULT).is_file()
            source = read_mapping(config).get("data", {}).get("source", {})
            paths = [v for v in flatten_keys(source).values() if isinstance(v, str) and v]
            sources |= {path for path in paths if Path(path).exists()}
    own = [path for path in sources if not (Path(path) / PREPARED).is_file()]
    out = [f"{path}: a source of data; remove the user there." for path in sorted(own)]
    if learned:
        out.append(
            f"{learned} runs: what was learned from the user stays in weights and counts until "
            "they are trained on data without the user."
        )
    out.append("the cache: it has no ids; python -m recsys.clean what=caches removes what it has.")
    return out


def _walk(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Kind and path of whatever may hold users."""
    for root in roots:
        if root.is_file():
            yield "feedback", root
        for where, folders, files in os.walk(root):
            folder = Path(where)
            folders.sort()
            if manifest.MANIFEST in files:
                folders.clear()
                if (folder / manifest.USERS).is_file():
                    yield "bundle", folder
                continue
            if EVENTS in files and PEOPLE in files:
                yield "data", folder
            if CASES in files:
                yield "cases", folder / CASES
            for name in sorted(files):
                if name == "feedback.jsonl":
                    yield "feedback", folder / name


def _count(path: Path, users: Collection[str]) -> int:
    """Rows of users in a Parquet file.

    Raises:
        DataError: It is damaged.
    """
    try:
        frame = pl.scan_parquet(path).filter(pl.col("user").cast(pl.String).is_in(list(users)))
        return int(frame.select(pl.len()).collect().item())
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}); restore or remove it.") from None


def _is_of(line: bytes, users: Collection[str]) -> bool:
    """Whether a line of JSON is of one of the users."""
    try:
        node = json.loads(line)
    except ValueError:
        return False  # the beginning of a line that was never finished
    return isinstance(node, dict) and str(node.get("user")) in users


def _clear_queries(folder: Path, kept: NDArray[np.bool_]) -> None:
    """Takes the training queries of users out of what a bundle, or a member in it, looks among."""
    for owners in sorted(folder.rglob(f"{manifest.STATE}/{OWNERS}.npy")):
        paths = {path.stem: path for path in owners.parent.glob("*.npy")}
        state = {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
        for name, values in drop_users(state, kept).items():
            np.save(paths[name], values, allow_pickle=False)


def _drop(path: Path, users: Collection[str]) -> bytes:
    """A Parquet file without users."""
    frame = pl.read_parquet(path)
    buffer = io.BytesIO()
    frame.filter(~pl.col("user").cast(pl.String).is_in(list(users))).write_parquet(buffer)
    return buffer.getvalue()


def _clear_data(folder: Path, users: Collection[str]) -> None:
    """Takes users out of canonical tables: events first, which may not name an unknown user."""
    for name in (EVENTS, PEOPLE):
        write_atomic(folder / name, _drop(folder / name, users))


def _clear_feedback(path: Path, users: Collection[str]) -> None:
    """Takes users' lines out of feedback; no service begins to write to it meanwhile.

    Raises:
        DataError: A service appends to the file.
    """
    with ExitStack() as held:
        locks = [held.enter_context(file.open("rb")) for file in _list_locks(path)]
        if not all([acquire_lock(file) for file in locks]):
            raise _make_busy_error(path)
        lines = path.read_bytes().splitlines(keepends=True)
        left = b"".join(line for line in lines if not _is_of(line, users))
        write_atomic(path, left, mode=stat.S_IMODE(path.stat().st_mode))


def _list_locks(feedback: Path) -> list[Path]:
    """The files that a service locks which writes to a file of feedback."""
    return sorted(feedback.parent.glob("*lock*"))


def _make_busy_error(path: Path) -> DataError:
    return DataError(
        f"{path}: a service writes to it; stop that first, or have it forget by POST /forget "
        '{"users": ["ID"]}, and run this again for the rest.'
    )


def _clear_cases(path: Path, users: Collection[str]) -> None:
    """Gives cases of users another name, which says nothing: the figures of the run stay."""
    frame = pl.read_parquet(path)
    names = {user: f"deleted-{secrets.token_hex(8)}" for user in users}
    buffer = io.BytesIO()
    frame.with_columns(pl.col("user").cast(pl.String).replace(names)).write_parquet(buffer)
    write_atomic(path, buffer.getvalue())


def _clear_bundle(folder: Path, users: Collection[str]) -> None:
    """Takes users and what they had out of a bundle, whose checksums are made anew.

    Raises:
        DataError: A file of it is not as it was written.
    """
    files = BundleFiles(folder)
    for name in files.manifest.files:
        files.find(name)  # what was tampered with must not get a checksum of its own
    people = pl.read_parquet(folder / manifest.USERS)
    kept = ~people["user"].is_in(list(users)).to_numpy()
    fresh = make_temporary_path(folder)
    with open_atomic_folder(fresh) as made:
        shutil.copytree(folder, made, dirs_exist_ok=True)
        (made / manifest.MANIFEST).unlink()
        people.filter(pl.Series(kept)).write_parquet(made / manifest.USERS)
        history = made / manifest.HISTORY
        offsets = np.load(history / "offsets.npy", allow_pickle=False)
        sizes = np.diff(offsets)
        events = np.repeat(kept, sizes)
        ends = np.concatenate([[0], np.cumsum(sizes[kept])]).astype(offsets.dtype)
        np.save(history / "offsets.npy", ends, allow_pickle=False)
        for name in ("items", "labels"):
            values = np.load(history / f"{name}.npy", allow_pickle=False)
            np.save(history / f"{name}.npy", values[events], allow_pickle=False)
        _clear_queries(made, kept)
        described = Manifest.describe(made, files.manifest.name, files.manifest.about)
        (made / manifest.MANIFEST).write_text(described.format(), encoding="utf-8")
    old = make_temporary_path(folder)
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)
