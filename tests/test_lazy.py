"""Imports that wait: a module's names come on first use, and a missing one is named."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from recsys import lazy


def test_a_module_is_imported_when_a_name_of_it_is_asked_for() -> None:
    code = (
        "import sys; from recsys import lazy, types\n"
        "colors = lazy.import_lazily('colorsys')\n"
        "assert 'colorsys' not in sys.modules and 'torch' not in sys.modules\n"
        "assert colors.rgb_to_hsv is colors.rgb_to_hsv and 'colorsys' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_lie_elsewhere_are_listed_and_had_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "asking", SimpleNamespace(own=1))  # type: ignore[arg-type]
    get, list_names = lazy.make_lazy_names("asking", import_lazily="recsys.lazy")
    assert get("import_lazily") is lazy.import_lazily
    assert list_names() == ["import_lazily", "own"]
    with pytest.raises(AttributeError, match="module 'asking' has no attribute 'import_lazy'"):
        get("import_lazy")
