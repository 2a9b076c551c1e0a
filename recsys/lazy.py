"""Imports that wait until they are used, so that a configuration is read without torch.

Composing a run asks each choice's module for its `Config` alone; torch, transformers and lightning
take seconds to load and have no part in that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _LazyModule(ModuleType):
    """Stands for a module, which is imported when a name of it is first asked for."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        found = self.__dict__.get("found")
        if found is None:
            found = self.__dict__["found"] = importlib.import_module(self.__name__)
        return getattr(found, name)


def import_lazily(name: str) -> ModuleType:
    """A module that is imported when a name of it is first asked for.

    Args:
        name: Its import path, as in "torch.nn.functional".
    """
    return _LazyModule(name)


def make_lazy_names(
    asking: str, **homes: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """What a module says of names that lie in other modules, as its `__getattr__` and `__dir__`.

    Args:
        asking: The module's own name.
        **homes: Import path of the module that has each name.
    """

    def get(name: str) -> Any:  # noqa: ANN401
        if name not in homes:
            raise AttributeError(f"module '{asking}' has no attribute '{name}'")
        return getattr(importlib.import_module(homes[name]), name)

    def list_names() -> list[str]:
        return sorted({*vars(importlib.import_module(asking)), *homes})

    return get, list_names
