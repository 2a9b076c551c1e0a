"""What is installed from a wheel, an sdist or a checkout finds its experiments in any folder."""

import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recsys
from recsys.config.yaml_file import read_mapping

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "recsys", "experiments", "sweeps")
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def called(*command, cwd, **env):
    """Output of a command that succeeds, without this checkout on its path."""
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env
    done = subprocess.run(map(str, command), capture_output=True, text=True, cwd=cwd, env=own)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clean copy of what is packaged: building leaves files in the folder."""
    folder = tmp_path_factory.mktemp("source") / "checkout"
    folder.mkdir()
    for name in PARTS:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def make_wheel(source, folder):
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    called(*command, "--no-index", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return make_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    name = called(sys.executable, "-c", SDIST, folder, cwd=source).splitlines()[-1]
    return folder / name


@pytest.fixture
def install(tmp_path):
    """Installs words of pip into an environment that has the libraries of this one alone."""
    place = tmp_path / "env"
    called(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    (packages,) = place.glob("lib/*/site-packages")
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    def run(*words):
        pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install"]
        plain = ["--no-deps", "--no-index", "--no-build-isolation", "--force-reinstall", "-q"]
        called(*pip, *plain, *words, cwd=tmp_path)
        return place / "bin"

    return run


def check_installed(programs, folder, words):
    """The commands work from another folder, with what came in the package alone."""
    where = "import recsys, recsys.config.compose; print(recsys.__file__, recsys.__version__)"
    path, version = called(programs / "python", "-c", where, cwd=folder).split()
    assert version == recsys.__version__
    assert Path(path).parent != ROOT / "recsys"
    assert Path(path).with_name("py.typed").is_file()
    assert called(programs / "recsys", "--version", cwd=folder) == f"recsys {version}\n"
    printed = called(
        *[programs / "python", "-m", "recsys.fit", "experiment=lora_two_tower", "--print-config"],
        cwd=folder,
    )
    assert "name: lora" in printed
    assert "  lr_regularization " in called(programs / "recsys", "sweep", "--help", cwd=folder)
    if words:
        command = [programs / "recsys", "fit", "experiment=popularity", *words, "output=own"]
        assert "result: own/popularity-" in called(*command, cwd=folder)
    return Path(path)


def test_the_citation_is_of_this_version():
    cited = read_mapping(ROOT / "CITATION.cff")
    assert cited["version"] == recsys.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_yaml_file_and_runs_elsewhere(
    wheel, install, tmp_path, shop_base
):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    code = {str(p.relative_to(ROOT)) for p in (ROOT / "recsys").rglob("*.py")}
    data = {
        f"recsys/_shipped/{p.relative_to(ROOT)}"
        for name in ("experiments", "sweeps")
        for p in (ROOT / name).rglob("*.yaml")
    }
    page = {
        "recsys/serve/page/index.html",
        "recsys/serve/page/page.css",
        "recsys/serve/page/page.js",
        "recsys/serve/page/chat.html",
        "recsys/serve/page/chat.js",
        "recsys/serve/page/shared.js",
    }
    assert held == code | data | page | {"recsys/py.typed"}
    programs = install(wheel)
    path = check_installed(programs, tmp_path, [w for w in shop_base if "trainer" not in w])
    assert path.is_relative_to(programs.parent)


@pytest.mark.slow
def test_an_sdist_makes_the_same_wheel(wheel, sdist, tmp_path):
    again = make_wheel(sdist, tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())
        contents = [(one.read(name), two.read(name)) for name in one.namelist()]
    assert all(a == b for a, b in contents)


@pytest.mark.slow
def test_an_editable_install_reads_the_checkout(source, install, tmp_path):
    path = check_installed(install("-e", source), tmp_path, [])
    assert path.is_relative_to(source)
    (source / "experiments" / "new.yaml").write_text("extends: popularity\n")
    words = ["-m", "recsys.fit", "experiment=new", "--print-config"]
    assert "experiment: new" in called(tmp_path / "env/bin/python", *words, cwd=tmp_path)
