"""The page for contributors: its tree is the real one, and its examples pass the contracts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.config.compose import compose

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|yaml|bash|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
UNNAMED = {"__init__.py", "__pycache__"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what belongs to the checkout")
def test_the_tree_names_every_room_and_no_other():
    (tree,) = (block for block in BLOCKS if block.startswith("recsys/\n"))
    lines = tree.splitlines()
    assert [line for line in lines[1:] if len(line.split()) < 3] == [], "a line says what it is for"
    rooms = {line.split()[0].rstrip("/") for line in lines if line.startswith("  ")}
    others = {line.split()[0].rstrip("/") for line in lines[1:] if not line.startswith(" ")}
    found = {path.name for path in (ROOT / "recsys").iterdir()} - UNNAMED
    assert rooms == found
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    folders = {name.partition("/")[0] for name in tracked if "/" in name and name[0] != "."}
    assert others == folders - {"recsys"}


@pytest.fixture
def written(tmp_path):
    """The files of the examples, which each block names in its first line."""
    for block in BLOCKS:
        name, body = block.removeprefix("# ").split("\n", 1)
        if name.endswith((".py", ".yaml")):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)
    return tmp_path


def run(*words, cwd):
    env = os.environ | {"PYTHONPATH": f"{cwd}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    env["RECSYS_CACHE"] = str(cwd / "cache")
    words = [sys.executable, "-m", *words]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_examples_pass_the_contracts_and_run_as_an_experiment(written, shop_base):
    said = run("pytest", "-q", "-p", "no:cacheprovider", "tests/test_my_package.py", cwd=written)
    tests = sum(int(count) for count in re.findall(r"(\d+) passed", said))
    assert tests > 20, said
    words = ["experiment=norms_two_tower", *shop_base, "trainer.max_steps=2"]
    assert "result: runs/norms_two_tower-" in run("recsys.fit", *words, cwd=written)


def test_a_choice_outside_is_named_by_its_import_path(written, monkeypatch):
    monkeypatch.syspath_prepend(written)
    monkeypatch.chdir(written)
    run = compose(["experiment=norms_two_tower"])
    assert type(run.tuning).__module__ == "my_package.norms"
    assert run.objective.margin == 1.0
    run = compose(["architecture=my_package.markov", "data.source=my_package.listens"])
    assert run.architecture.smoothing == 0.01
    assert run.data.source.default_split == "time"
