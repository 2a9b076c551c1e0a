"""The axes of a run and their choices: a choice is a module with a dataclass `Config`."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import types
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from recsys.config.pretraining import PretrainConfig, PretrainingConfig
from recsys.config.schema import (
    ArchitectureConfig,
    Choice,
    ObjectiveConfig,
    RunConfig,
    SourceConfig,
    TuningConfig,
)
from recsys.config.shipped import find_folders, list_names
from recsys.errors import ConfigError, nearest

AXES: Mapping[str, str] = {
    "data.source": "recsys.data.sources",
    "tuning": "recsys.tuning",
    "architecture": "recsys.architectures",
    "objective": "recsys.objectives",
}
"""Where the choices of each axis of a run lie: a choice is a file in that package."""

PACKAGES: Mapping[str, str] = {**AXES, "pretraining": "recsys.pretraining"}
"""The same for every axis, those that are no part of a run included."""

NEEDED: Mapping[str, tuple[type[Choice], str]] = {
    "data.source": (SourceConfig, "load"),
    "tuning": (TuningConfig, "apply"),
    "architecture": (ArchitectureConfig, "Model"),
    "objective": (ObjectiveConfig, "Objective"),
    "pretraining": (PretrainingConfig, "Task"),
}
"""The base of the `Config` of each axis, and what a choice's module has beside it."""


@dataclass(frozen=True)
class Root:
    """What the words of a command are composed into.

    Attributes:
        schema: The dataclass.
        axes: Its axes.
        folder: Where its experiments lie, within a folder of experiments.
    """

    schema: type
    axes: tuple[str, ...]
    folder: str

    def find_folders(self) -> list[Path]:
        """Where its experiments are looked up, in order."""
        return [folder / self.folder for folder in find_folders("experiment")]


RUN = Root(RunConfig, tuple(AXES), "")
PRETRAINING = Root(PretrainConfig, ("data.source", "tuning", "pretraining"), "pretraining")


def list_choices(axis: str) -> dict[str, str]:
    """Names of an axis' choices and the first line of each module's docstring, without importing.

    Args:
        axis: A key of `PACKAGES`.

    Returns:
        Name to description, sorted by name.
    """
    spec = importlib.util.find_spec(PACKAGES[axis])
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = {}
    for path in sorted(p for folder in folders for p in Path(folder).glob("[!_]*.py")):
        found[path.stem] = _read_summary(path, path.stat().st_mtime_ns)
    return found


@functools.cache
def _read_summary(path: Path, changed: int) -> str:
    """First line of a module's docstring, read once: it is half of what composing takes."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def list_experiments(root: Root = RUN) -> list[str]:
    """Names of the experiments of the working folder and of those that are shipped, sorted."""
    return list_names(root.find_folders())


def get_choice_name(config: object) -> str:
    """The name under which a choice's `Config` was asked for, as in `tuning: lora`."""
    module = type(config).__module__
    package, _, name = module.rpartition(".")
    return name if package in PACKAGES.values() else module


def check_choice(axis: str, name: object) -> None:
    """Raises unless a name is a choice of an axis, or the import path of a module outside.

    Raises:
        ConfigError: It is neither; the sentence names the nearest choice.
    """
    known = list_choices(axis)
    if isinstance(name, str) and "." in name and all(p.isidentifier() for p in name.split(".")):
        return  # the import path of a module outside
    if not isinstance(name, str) or name not in known:
        hint = nearest(str(name), known)
        if name in list_experiments():
            hint = f" It is an experiment: experiment={name}. Known: {', '.join(known)}."
        raise ConfigError(f"{axis}: '{name}' is not a choice.{hint}")


def import_choice(axis: str, name: str) -> type:
    """The `Config` of a choice; its module is imported.

    Args:
        axis: A key of `PACKAGES`.
        name: Of the choice, or the import path of a module outside.

    Raises:
        ConfigError: There is no such choice, or its module lacks what the axis needs.
    """
    check_choice(axis, name)
    module_name = name if name not in list_choices(axis) else f"{PACKAGES[axis]}.{name}"
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{axis}: '{name}' cannot be imported ({reason}).") from None
    return _get_schema(axis, module)


def _get_schema(axis: str, module: types.ModuleType) -> type:
    """The `Config` of a choice's module, once module and class have what the axis needs.

    The class is how the module is found again, so it must be the module's own.
    """
    config = getattr(module, "Config", None)
    if not isinstance(config, type) or not is_dataclass(config):
        raise ConfigError(f"{axis}: {module.__name__} has no dataclass named Config.")
    if config.__module__ != module.__name__:
        raise ConfigError(
            f"{axis}: {module.__name__} takes its Config from {config.__module__}, and would be "
            "taken for that; define a dataclass Config of its own there, which may inherit from it."
        )
    base, function = NEEDED[axis]
    config = _inherit_defaults(config, base)
    missing = [f"Config.{name}" for name in sorted(config.__abstractmethods__)]
    if function not in dir(module):  # which may lie elsewhere, to be loaded when it is used
        missing.append(function)
    if missing:
        raise ConfigError(f"{axis}: {module.__name__} lacks {', '.join(missing)}; define it there.")
    return config


@functools.cache
def _inherit_defaults(config: type, base: type[Choice]) -> type[Choice]:
    """A `Config` with what its axis says by default, also where it inherits from nothing itself."""
    if issubclass(config, base):
        return config
    own = {"__module__": config.__module__, "__doc__": config.__doc__}
    return dataclass(
        types.new_class(config.__name__, (config, base), exec_body=lambda space: space.update(own))
    )
