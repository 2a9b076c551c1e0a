"""A process that ends with the one that started it, however that one ends.

The child holds one end of a pipe whose other end lives in the parent alone: the system closes it
with the parent, also after `kill -9`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIPE = "RECSYS_PARENT_PIPE"
"""Environment variable with the child's end of the pipe."""


@contextmanager
def tie_child() -> Iterator[tuple[dict[str, str], int]]:
    """Ties a child to this process.

    Yields:
        The environment for the child, and the descriptor that it is to inherit (`pass_fds`); the
        child must run until the block ends.
    """
    read, write = os.pipe()
    try:
        yield {**os.environ, PIPE: str(read)}, read
    finally:
        os.close(read)
        os.close(write)


def follow_parent() -> None:
    """Sends this process SIGTERM when the one that has tied it to itself is gone.

    A run then saves its state and leaves. Without a tie nothing happens.
    """
    given = os.environ.pop(PIPE, None)  # what this process starts is tied to nobody
    if given is None:
        return
    with suppress(ValueError, OSError):
        descriptor = int(given)
        os.set_inheritable(descriptor, False)
        threading.Thread(target=_wait, args=(descriptor,), daemon=True).start()


def _wait(descriptor: int) -> None:
    """Blocks until the other end is closed; nothing is ever written into it."""
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
