"""Packs what benchmarks/gpu/run.sh needs on a machine that has a GPU and no network.

Usage: python benchmarks/gpu/pack.py FOLDER [--python=3.12]

FOLDER, of at most 60 MiB, gets this project's files and `wheels.tar.xz`: the packages that such a
machine lacks beside its own torch (2.11), lightning, scipy, scikit-learn and pytest, in the
versions that are installed here. No weights: models are drawn on the machine. Copy the folder
there, and run `benchmarks/gpu/run.sh` in it.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60 * 2**20
FOLDERS = ("recsys", "experiments", "sweeps", "tests/gpu", "tests/encoders", "benchmarks/gpu")
FILES = ("pyproject.toml", "setup.py", "LICENSE", "README.md", "tests/conftest.py")
PACKAGES = (
    "polars",
    "polars-runtime-32",
    "omegaconf",
    "transformers",  # newer than what comes with such an image
    "peft",
    "bitsandbytes",
)
PLATFORMS = ("manylinux_2_28", "manylinux_2_24", "manylinux_2_17", "manylinux2014")
NEEDLESS = ("rocm", "xpu", "cuda11", "cuda12", "sboms/", ".pyi")
"""Parts of names within a wheel that such a machine has no use for: kernels for other devices."""


def main(argv: list[str]) -> int:
    """Packs, and says how large it is."""
    words = [word for word in argv if not word.startswith("--")]
    flags = [word for word in argv if word.startswith("--")]
    version = flags[0].removeprefix("--python=") if flags else "3.12"
    if len(words) != 1 or len(flags) > 1 or (flags and not flags[0].startswith("--python=")):
        print(__doc__)
        return 2
    folder = Path(words[0])
    if folder.exists():
        print(f"{folder} is there already; name a new folder, or remove it")
        return 2
    copy_project(folder)
    with tempfile.TemporaryDirectory() as scratch:
        wheels = fetch_wheels(Path(scratch), version)
        pack_wheels(wheels, folder / "wheels.tar.xz")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB, {', '.join(sorted(w.name for w in wheels))}")
    if size > LIMIT:
        print(f"that is more than {LIMIT / 2**20:.0f} MiB")
        return 1
    return 0


def copy_project(folder: Path) -> None:
    """Copies the files that the measurements read; nothing that was built or kept."""
    for path in list_project():
        to = folder / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, to)


def list_project() -> Iterator[Path]:
    """Files of the project, relative to it."""
    yield from (Path(name) for name in FILES)
    for name in FOLDERS:
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".json":
                yield path.relative_to(ROOT)


def fetch_wheels(folder: Path, version: str) -> list[Path]:
    """Fetches the wheels of the versions installed here, for another Python."""
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", version, "--implementation", "cp", "-d", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", f"{platform}_x86_64"]
    subprocess.run([*command, *wanted], check=True)
    return sorted(folder.glob("*.whl"))


def pack_wheels(wheels: list[Path], to: Path) -> None:
    """Unpacks wheels side by side, and packs them again as one: smaller by a third."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(to, "w:xz", preset=6) as archive:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                names = [n for n in content.namelist() if not any(odd in n for odd in NEEDLESS)]
                content.extractall(scratch, names)
        for path in sorted(Path(scratch).iterdir()):
            archive.add(path, path.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
