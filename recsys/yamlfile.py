"""Mappings of YAML files, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recsys.errors import ConfigError

Node = dict[str, Any]


def read_mapping(path: Path) -> Node:
    """A YAML file's mapping; a `ConfigError` says why there is none."""
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a YAML mapping that can be read: {reason}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values.")
    return cast(Node, raw)
