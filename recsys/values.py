"""Values of a configuration that its types allow and that cannot be used."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, cast

from recsys.errors import ConfigError
from recsys.schema import Run


def check_lists(run: Run) -> None:
    """Refuses lists of a wrong length or with values that cannot be used."""
    betas, ks = run.optimizer.betas, run.evaluation.k
    if len(betas) != 2:
        raise ConfigError(f"optimizer.betas takes two numbers, not {len(betas)}.")
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"optimizer.betas is {betas}; set both from 0 to below 1.")
    if not ks or len(set(ks)) != len(ks) or min(ks) < 1:
        raise ConfigError(
            f"evaluation.k is {ks}; give one or more different whole numbers from 1, as in "
            "evaluation.k=[10,20]."
        )


def check_container(key: str, value: object, kind: type) -> None:
    """Refuses a list where a mapping is, the other way round, and a single value for either."""
    if isinstance(value, kind):
        return
    shown = "{NAME: VALUE}" if kind is dict else "[A, B]"
    if kind is list and not isinstance(value, dict):
        shown = f"[{value}]"
    what = "a mapping" if kind is dict else "a list"
    raise ConfigError(f"{key} takes {what}; write {key}={shown}.")


def check_ranges(config: object, prefix: str) -> None:
    """Refuses numbers outside the range of a field."""
    for f in fields(cast(Any, config)):
        value = getattr(config, f.name)
        least, most = f.metadata.get("least"), f.metadata.get("most")
        if is_dataclass(value):
            check_ranges(value, f"{prefix}{f.name}.")
        elif least is not None and value is not None and not value >= least:
            raise ConfigError(f"{prefix}{f.name} is {value}; set it to {least:g} or more.")
        elif most is not None and value is not None and not value <= most:
            raise ConfigError(f"{prefix}{f.name} is {value}; set it to {most} or less.")
