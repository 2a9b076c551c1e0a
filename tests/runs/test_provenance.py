"""What a result says of the code."""

import shutil
import subprocess

import pytest

from recsys.runs import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of which `recsys.runs.provenance` believes to be a part."""
    (tmp_path / "recsys" / "runs").mkdir(parents=True)
    for name in ("recsys/runs/provenance.py", "recsys/other.py", "page.md", "pyproject.toml"):
        (tmp_path / name).write_text("# as committed\n")

    def git(*words):
        own = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *own, *words], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "recsys" / "runs" / "provenance.py"))
    return tmp_path, git("rev-parse", "HEAD")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        (None, False),
        ("page.md", False),
        ("runs/result.json", False),
        ("recsys/other.py", True),
        ("recsys/new.py", True),
        ("pyproject.toml", True),
    ],
)
def test_changes_of_the_code_are_told_and_no_others(checkout, name, dirty):
    root, head = checkout
    if name:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("# changed\n")
    assert provenance.find_commit() == {"commit": head, "dirty": dirty}


def test_outside_a_checkout_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.find_commit() == {}
