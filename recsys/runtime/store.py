"""What is computed once and shared: folders on disk, named by the content that made them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

from recsys.errors import DataError
from recsys.runtime.excluded_time import Elapsed, excluded_time, read_clocks, record_build
from recsys.runtime.files import (
    make_temporary_path,
    open_atomic_folder,
    translate_write_errors,
    write_atomic,
)
from recsys.runtime.locks import UseRegister, acquire_lock, list_used

KEY_FILE = "key.json"
FILES_FILE = "files.json"
_HEAD = 65_536  # bytes at the beginning of a file that are compared

BUILT = "built.json"
"""In each folder: the seconds and CPU seconds that building it took."""

IN_USE = ".in_use"
"""Where processes note which folders they use, so that nobody removes those."""

_registers: dict[Path, UseRegister] = {}
"""Of the root that this process used last: it has one, and tests that change it few open files."""


def get_default_root() -> Path:
    """The folder of the store: RECSYS_CACHE where it is set, else ~/.cache/recsys.

    Raises:
        DataError: It begins with the name of a user, or this one has no home.
    """
    named = os.environ.get("RECSYS_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "recsys"
    except RuntimeError:
        told = f"RECSYS_CACHE={named}" if named else "the cache (~/.cache/recsys)"
        raise DataError(
            f"{told} lies in the home of a user whom this system does not know; set RECSYS_CACHE "
            "to a whole path."
        ) from None


def format_key(parts: Mapping[str, object]) -> str:
    """The one JSON text of a key, whatever the order of its parts.

    Raises:
        DataError: A part is no JSON value, so that it could not be told from another.
    """
    _check_value(parts, "key")
    return json.dumps(
        parts, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def _check_value(value: object, where: str) -> None:
    """Refuses what JSON would change silently (a number as a key) or could not hold.

    Raises:
        DataError: Names the place of the part.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str):
                raise DataError(f"{where} holds the name {name!r}; use a text as its name")
            _check_value(part, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            _check_value(part, f"{where}[{place}]")
    elif isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        raise DataError(f"{where} is {value}, which cannot be part of a key; use a finite number")
    elif not (value is None or isinstance(value, str | int | float)):
        raise DataError(
            f"{where} is a {type(value).__name__}, which cannot be part of a key; "
            "use texts, numbers, lists and dictionaries"
        )


class Store:
    """Folders that are built once per content and shared by runs, trials and processes.

    A builder holds a lock that the system takes back however its process ends, so that others wait
    for its folder instead of making the same, and a process that dies blocks none. Builders work
    aside and the first rename wins: where a disk has no locks, work is done twice and no harm.

    Args:
        root: Where the folders lie; None means `get_default_root()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = get_default_root() if root is None else Path(root)

    def get_or_build(
        self,
        kind: str,
        key_parts: Mapping[str, object],
        build: Callable[[Path], Elapsed | None],
        own: bool = False,
    ) -> Path:
        """The folder of a content, built first where it does not stand yet.

        Args:
            kind: What sort of thing it is, the name of a folder such as "catalog".
            key_parts: All that the content depends on, as JSON values.
            build: Fills the empty folder it is given; it runs at most once in this call. It may
                give what others had spent on what it took over.
            own: Building it is the work of the method itself, and a cost of it.

        Returns:
            The folder, whole, with `key.json` that says what it is.

        Raises:
            DataError: The kind or a part of the key cannot be used, or the disk is full.
        """
        if not kind or kind != Path(kind).name or kind.startswith("."):
            raise DataError(f"store kind {kind!r} is no plain folder name; use letters and digits")
        key = format_key(dict(key_parts))
        path = self.root / kind / hashlib.sha256(key.encode("utf-8")).hexdigest()
        self._make_root()
        _note_use(self.root, path)  # before the look: from here on nobody removes it
        fresh = self._fill(path, key, build, own)
        with suppress(OSError):  # of another user, who sees its age by when it was built
            os.utime(path / KEY_FILE, (time.time(), (path / KEY_FILE).stat().st_mtime))
        # What is a cost of this run already must not count a second time.
        record_build(path, Elapsed() if own and fresh else read_build_time(path))
        return path

    def _fill(
        self, path: Path, key: str, build: Callable[[Path], Elapsed | None], own: bool
    ) -> bool:
        """Builds a folder where it does not stand; whether this process built it."""
        if _is_intact(path, key):
            return False
        with nullcontext() if own else excluded_time(), _hold_lock(path):
            if _is_intact(path, key):
                return False
            _remove_damaged(path, key)
            try:
                with open_atomic_folder(path) as fresh:
                    began = read_clocks()
                    before = build(fresh)
                    spent = read_clocks().subtract(began)
                    # What was taken over from another folder has cost its part of that one.
                    spent = spent if before is None else spent.add(before)
                    write_atomic(fresh / FILES_FILE, json.dumps(list_files(fresh), indent=1))
                    _write_build_time(fresh, spent)
                    write_atomic(fresh / KEY_FILE, key)
            except DataError:
                # another process was faster: its folder is as good as ours
                if not _is_intact(path, key):
                    raise
        return True

    def find_similar(
        self, kind: str, key_parts: Mapping[str, object], part: str
    ) -> list[tuple[Path, str]]:
        """Whole folders of a kind whose keys differ in one part alone, the newest first.

        Args:
            kind: What sort of thing it is.
            key_parts: The key.
            part: Name of the part that may differ, a text.

        Returns:
            Each folder, and the part in its key.
        """
        found = []
        asked = {k: v for k, v in json.loads(format_key(dict(key_parts))).items() if k != part}
        for path in (self.root / kind).glob(f"[0-9a-f]*/{KEY_FILE}"):
            try:
                text = path.read_text(encoding="utf-8")
                key = json.loads(text)
                other = key.pop(part)
                if key == asked and isinstance(other, str) and _is_intact(path.parent, text):
                    found.append((path.stat().st_mtime, path.parent, other))
            except (OSError, ValueError, KeyError, AttributeError, RecursionError):
                continue  # another process takes it away, or it is damaged
        return [(folder, other) for _, folder, other in sorted(found, reverse=True)]

    def list_folders(self) -> list[Path]:
        """What stands in the store, whole or left behind half-built, by kind and name."""
        folders = [path for path in self.root.glob("[!.]*/*") if path.is_dir()]
        return sorted(p for p in folders if _find_owner(p).name.isalnum() and not p.is_symlink())

    def remove(self, path: Path) -> str:
        """Removes a folder of `list_folders` that no process builds or uses.

        Returns:
            Why it was kept; empty where it is gone.
        """
        lock = _make_lock_path(_find_owner(path))
        try:
            handle = _acquire_lock(lock, wait=False)
        except BlockingIOError:
            return "a process builds it"
        if handle is None:
            return "no lock can be taken there"
        try:
            if self.is_used(path):
                return "a process uses it"
            taken = make_temporary_path(_find_owner(path))
            path.rename(taken)
            if self.is_used(path):  # began between the look and the rename, and waits for us now
                taken.rename(path)
                return "a process uses it"
            shutil.rmtree(taken)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"it cannot be removed ({error.strerror})"
        finally:
            _release_lock(lock, handle)
        return ""

    def is_used(self, path: Path) -> bool:
        """Whether a living process has asked this store for a folder."""
        return path.resolve() in list_used(self.root / IN_USE)

    def _make_root(self) -> None:
        """Makes the folder of the store.

        Raises:
            DataError: It cannot be made.
        """
        try:
            with translate_write_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
        except DataError as error:
            raise DataError(
                f"the cache, whose folder RECSYS_CACHE names, cannot be made: {error}"
            ) from error


def _note_use(root: Path, path: Path) -> None:
    """Notes that this process uses a folder of a store."""
    register = _registers.get(root)
    with suppress(OSError):  # one who may only read there removes nothing either
        if register is None or not register.is_mine():
            for other in _registers.values():
                other.close()
            _registers.clear()
            register = _registers[root] = UseRegister(root / IN_USE)
        register.note(path)


def _find_owner(path: Path) -> Path:
    """The folder that something in a store is, or is a half-built one of."""
    return path.with_name(path.name[1:].split(".", 1)[0]) if path.name[0] == "." else path


def _write_build_time(folder: Path, spent: Elapsed) -> None:
    """Notes what building a folder took."""
    write_atomic(folder / BUILT, json.dumps(asdict(spent)) + "\n")


def read_build_time(folder: Path) -> Elapsed | None:
    """What building a folder took; None where it was built before that was noted."""
    try:
        return Elapsed(**json.loads((folder / BUILT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Lets one builder of a folder in at a time, and clears away what dead builders left."""
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = _make_lock_path(path)
    try:
        handle = _acquire_lock(lock, wait=False)
    except BlockingIOError:
        print(f"another process builds this {path.parent.name}: waiting for it", file=sys.stderr)
        handle = _acquire_lock(lock, wait=True)
    try:
        if handle is not None:
            _remove_leftovers(path)
        yield
    finally:
        if handle is not None:
            _release_lock(lock, handle)


def _make_lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _acquire_lock(lock: Path, wait: bool) -> int | None:
    """The descriptor of a lock file that is now ours.

    Args:
        lock: The file; it is made where it is missing.
        wait: Wait for its holder, or give up at once.

    Returns:
        None where the disk has no locks.

    Raises:
        BlockingIOError: Another holds it, and `wait` is false.
    """
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None  # whatever is wrong with the disk, the build itself will tell
        ours = False
        try:
            if not acquire_lock(handle, wait):
                raise BlockingIOError(f"{lock} is held by another process")
            # the holder before us may have removed this file, and others hold a new one
            with suppress(FileNotFoundError):
                ours = os.path.samestat(os.fstat(handle), lock.stat())
            if ours:
                return handle
        except BlockingIOError:
            raise
        except OSError:
            with suppress(OSError):
                lock.unlink()
            return None
        finally:
            if not ours:
                os.close(handle)


def _release_lock(lock: Path, handle: int) -> None:
    """Removes a lock file while it is still held, so that no waiting process keeps to it."""
    with suppress(OSError):
        lock.unlink()
    os.close(handle)


def _remove_leftovers(path: Path) -> None:
    """Removes what builders that died left beside `path`, whose lock we hold.

    A builder holds the lock of its folder while it works aside: what nobody holds is dead.
    """
    for left in path.parent.glob(".*.*.tmp"):
        whose = _find_owner(left)
        if whose == path:
            shutil.rmtree(left, ignore_errors=True)
            continue
        try:
            handle = _acquire_lock(_make_lock_path(whose), wait=False)
        except BlockingIOError:
            continue
        if handle is not None:
            shutil.rmtree(left, ignore_errors=True)
            _release_lock(_make_lock_path(whose), handle)


def _is_intact(path: Path, key: str) -> bool:
    """Whether `path` stands, says that it is `key`, and has its files as they were written.

    The key is written last, so that all was there then; what a disk or a user has cut or emptied
    since is found by the sizes and the beginnings of the files.
    """
    try:
        if (path / KEY_FILE).read_text(encoding="utf-8") != key:
            return False
        return bool(json.loads((path / FILES_FILE).read_bytes()) == list_files(path))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return False


def list_files(path: Path) -> dict[str, list[int | str]]:
    """The files of a folder by their names in it: size in bytes and checksum of the beginning."""
    out: dict[str, list[int | str]] = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path).as_posix()
        if name not in (KEY_FILE, FILES_FILE, BUILT):
            with file.open("rb") as content:
                head = hashlib.sha256(content.read(_HEAD)).hexdigest()
            out[name] = [file.stat().st_size, head]
    return out


def _remove_damaged(path: Path, key: str) -> None:
    """Takes away a damaged folder (one that lost its key) so that it can be built again."""
    taken = make_temporary_path(path)
    try:
        path.rename(taken)
    except FileNotFoundError:
        return
    # between our look and our rename another process may have put a whole one in place
    if _is_intact(taken, key):
        try:
            taken.rename(path)
            return
        except OSError:
            # a third process has put its own there, equal to this one
            if not _is_intact(path, key):
                raise
    if taken.is_dir():
        shutil.rmtree(taken, ignore_errors=True)
    else:
        taken.unlink()
