"""Chapters: percent scripts that run, and pages made of them with what they printed.

`# %% [markdown]` begins a cell of text, `# %%` one of code. A chapter asserts what it claims: a
claim that no longer holds ends the build as it ends the test. Outputs are kept by the digest of
all chapters' sources, so that the build after a test, and `mkdocs serve`, run none again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
KEPT = CHAPTERS.parents[1] / "build" / "chapters"


@dataclass(frozen=True)
class Cell:
    """A cell of a percent script.

    Attributes:
        text: Markdown, or Python.
        code: Whether it is Python.
        line: Where it begins in the file, from 1.
    """

    text: str
    code: bool
    line: int


def paths() -> list[Path]:
    """The chapters in their order; other modules in the folder are what they share."""
    return sorted(CHAPTERS.glob("[0-9]*.py"))


def cells(source: str) -> list[Cell]:
    """The cells of a percent script; what stands before the first one is left out."""
    starts = [*re.finditer(r"^# %%(.*)$", source, flags=re.MULTILINE)]
    ends = [match.start() for match in starts[1:]] + [len(source)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        body = source[start.end() : end].strip("\n")
        code = "[markdown]" not in start[1]
        line = source.count("\n", 0, start.end()) + 2
        text = body if code else re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        if text.strip():
            found.append(Cell(text, code, line))
    return found


def run(path: Path) -> list[str]:
    """What each code cell of a chapter prints; runs it in an empty folder of its own.

    In a process of its own: runs take signals, which only a main thread can.

    Args:
        path: The chapter.

    Returns:
        An output a code cell.

    Raises:
        RuntimeError: It failed, or a claim does not hold; the message has its traceback.
    """
    kept = KEPT / f"{path.stem}-{_digest(path)}.json"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a test and a build may want it at once
        if not kept.is_file():
            _run_aside(path, kept)
    return list(json.loads(kept.read_text(encoding="utf-8")))


def _run_aside(path: Path, kept: Path) -> None:
    """Runs a chapter and keeps its outputs in place of earlier ones."""
    aside = kept.with_suffix(".new")
    command = [sys.executable, __file__, str(path.resolve()), str(aside)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{path.name} failed:\n{done.stderr}")
    for old in KEPT.glob(f"{path.stem}-*.json"):
        old.unlink()
    aside.rename(kept)


def _digest(path: Path) -> str:
    """Of the chapter, what chapters share, and the package, whose results they show."""
    package = sorted((CHAPTERS.parents[1] / "recsys").rglob("*.py"))
    digest = hashlib.sha256()
    for each in [path, *sorted(CHAPTERS.glob("[!0-9]*.py")), *package]:
        digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


def _execute(path: Path) -> list[str]:
    outputs = []
    names = {"__name__": "__main__", "__file__": str(path)}
    parts = cells(path.read_text(encoding="utf-8"))
    with _place():
        for cell in parts:
            if cell.code:
                out = io.StringIO()
                program = compile("\n" * (cell.line - 1) + cell.text, str(path), "exec")
                with contextlib.redirect_stdout(out):
                    exec(program, names)
                outputs.append(out.getvalue())
    return outputs


@contextlib.contextmanager
def _place() -> Iterator[None]:
    """An empty folder to work in and to cache in, and what chapters share among the modules."""
    folder, before, environment = tempfile.mkdtemp(), os.getcwd(), dict(os.environ)
    package = os.pathsep.join([str(CHAPTERS.parents[1]), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": package, "WANDB_MODE": "disabled", "COLUMNS": "90"}
    sys.path.insert(0, str(CHAPTERS))
    try:
        os.chdir(folder)
        os.environ |= {**own, "RECSYS_CACHE": str(Path(folder) / "cache")}
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
        sys.path.remove(str(CHAPTERS))
        shutil.rmtree(folder)


def page(path: Path) -> str:
    """A chapter as Markdown, each cell of code with its output."""
    outputs = iter(run(path))
    parts = []
    for cell in cells(path.read_text(encoding="utf-8")):
        if not cell.code:
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text}\n```")
        output = next(outputs).rstrip()
        if output:
            parts.append(f"```text\n{output}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_execute(Path(sys.argv[1]))), encoding="utf-8")
