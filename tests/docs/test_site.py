"""The site builds without a warning: every page, link, picture and anchor is there."""

import os
import subprocess
import sys
import tomllib

import pytest

from tests.docs.pages import ROOT


def test_what_the_chapters_train_with_is_installed_with_the_site():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(extras["quickstart"]) <= set(extras["docs"])


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs", reason='the site needs pip install -e ".[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for page in (
        "index",
        "tuning/index",
        "benchmarks/quality/index",
        "chapters/01_which_tuning/index",
    ):
        assert (tmp_path / f"{page}.html").is_file()
    assert (tmp_path / "benchmarks/speed/plots/clock.png").is_file()
    assert "<!-- generated" not in (tmp_path / "tuning" / "index.html").read_text()
