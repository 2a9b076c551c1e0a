"""Every chapter runs, and what it claims holds; the site shows what it printed here."""

import importlib.util
import sys

import pytest

from tests.docs.pages import ROOT

HOOKS = ROOT / "docs" / "_hooks"


def load_hook(name):
    """A module of the site, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


chapters = load_hook("chapters")


@pytest.mark.slow
@pytest.mark.parametrize("path", chapters.paths(), ids=lambda path: path.stem)
def test_what_a_chapter_claims_holds(path):
    outputs = chapters.run(path)
    assert len(outputs) == sum(cell.code for cell in chapters.cells(path.read_text()))


def test_a_claim_that_does_not_hold_is_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "KEPT", tmp_path / "kept")
    wrong = tmp_path / "wrong.py"
    wrong.write_text("# %% [markdown]\n# One.\n\n# %%\nprint(1)\n\n# %%\nassert 1 > 2\n")
    with pytest.raises(RuntimeError, match=r'wrong.py", line 8(?s:.*)AssertionError'):
        chapters.page(wrong)
    wrong.write_text(wrong.read_text().replace("1 > 2", "2 > 1"))
    assert chapters.page(wrong) == (
        "One.\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nassert 2 > 1\n```\n"
    )
    monkeypatch.setattr(chapters, "_place", None)  # its output is kept, and it is not run again
    assert chapters.run(wrong) == ["1\n", ""]


@pytest.mark.parametrize("path", chapters.paths(), ids=lambda path: path.stem)
def test_a_chapter_ends_with_commands_for_own_data(path):
    last = chapters.cells(path.read_text())[-1]
    assert not last.code
    assert "## Now on your data" in last.text
    assert "python -m recsys." in last.text
