"""Which process of a run this is, before torch knows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from recsys.runtime.launching.launches import Launch, read_env_number

FOLDER = "RECSYS_RUN_FOLDER"
"""Environment variable by which the launching process tells the other ranks their run."""

_joined: Launch | None = None


@contextmanager
def join_launch(launch: Launch | None) -> Iterator[None]:
    """Has this process be one of those that another launcher has started, while a block lasts.

    Only a command says so of itself: a program that calls one of its functions may be started as
    often as it likes, and each of them has runs of its own.

    Args:
        launch: As `launching.launches.find_launch` gives it; None: nobody started others.
    """
    global _joined
    before, _joined = _joined, launch
    try:
        yield
    finally:
        _joined = before


def get_launch() -> Launch | None:
    """How another launcher has started this process and others of its run, or None."""
    return _joined


def get_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process' number among those of the run, before torch knows it.

    Raises:
        ConfigError: The environment holds no number.
    """
    if FOLDER in environment:
        return read_env_number("LOCAL_RANK", 0, environment)
    return 0 if _joined is None else _joined.rank


def get_local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process' number among those of the run on its machine, and so that of its device.

    Raises:
        ConfigError: The environment holds no number.
    """
    return get_rank(environment) if _joined is None else _joined.local_rank


def leaves_alone() -> bool:
    """Whether nobody ends this process when the first one leaves: another launcher started it."""
    return _joined is not None
