"""Which process of a run this is, before torch knows it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from recsys.errors import ConfigError
from recsys.words import parse_count

FOLDER = "RECSYS_RUN_FOLDER"
"""Environment variable by which the launching process tells the other ranks their run."""


def get_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process' number among those of the run, before torch knows it.

    Raises:
        ConfigError: The environment holds no number.
    """
    return read_env_number("LOCAL_RANK", 0, environment) if FOLDER in environment else 0


def read_env_number(name: str, default: int, environment: Mapping[str, str] = os.environ) -> int:
    """A whole number from 0 that an environment variable holds.

    Args:
        name: Of the variable.
        default: Where it is not set.
        environment: The variables.

    Raises:
        ConfigError: It is no such number.
    """
    value = environment.get(name, str(default))
    found = parse_count(value)
    if found is None:
        raise ConfigError(
            f"the environment variable {name} is '{value}'; unset it, or set it to a whole number."
        )
    return found
