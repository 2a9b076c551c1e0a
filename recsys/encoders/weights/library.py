"""The library of codes, which only some options need: looked for before anything is loaded."""

from __future__ import annotations

import importlib.util

from recsys.errors import ConfigError

BITSANDBYTES = "pip install 'recsys[quantize]'"


def require_bitsandbytes(option: str) -> None:
    """Refuses to go on without bitsandbytes.

    Args:
        option: What needs it, as the user wrote it.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"{option} needs bitsandbytes: {BITSANDBYTES}; or leave it out.")
