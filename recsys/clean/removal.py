"""Removal of what nobody holds: under its lock, and out of sight before it is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from recsys.clean.leftovers import Leftover
from recsys.clean.uses import list_locks
from recsys.runtime.files import make_temporary_path
from recsys.runtime.locks import acquire_lock
from recsys.runtime.store import Store


def remove(rows: Sequence[Leftover], store: Store) -> Iterator[tuple[Leftover, str]]:
    """Removes one after the other.

    Args:
        rows: What is to go.
        store: The cache.

    Yields:
        Each, and why it was kept; empty where it is gone.
    """
    for row in rows:
        if row.path.resolve().is_relative_to(store.root.resolve()):
            yield row, store.remove(row.path)
        else:
            yield row, _remove_run(row)


def _remove_run(row: Leftover) -> str:
    """Removes a folder or file beside runs; why not, where it stays."""
    try:
        with _hold(row) as ours:
            if not ours:
                return "a process works in it"
            taken = make_temporary_path(row.path)
            # From here on no command takes it for a run, also where this one is stopped halfway.
            row.path.rename(taken)
            if taken.is_dir():
                shutil.rmtree(taken)
            else:
                taken.unlink()
    except FileNotFoundError:
        return "" if not row.path.exists() else "another process changes it"
    except OSError as error:
        return f"it cannot be removed ({error.strerror})"
    return ""


@contextmanager
def _hold(row: Leftover) -> Iterator[bool]:
    """Takes all the locks of a folder, so that nothing begins to work in it meanwhile."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in list_locks(row.path)]
        yield all([acquire_lock(file) for file in files])
