"""The tests marked `gpu`, counted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from measuring import Row, Setting

ROOT = Path(__file__).resolve().parents[2]


def run_tests(setting: Setting) -> None:
    """Runs them, and says how many passed; on a CPU all of them are skipped, and that is said."""
    setting.measure("tests marked gpu", "tests/gpu", count_tests)


def count_tests(row: Row) -> None:
    """Runs pytest, and reads what it says at its end."""
    words = ["-m", "gpu", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/gpu"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=max(5.0, row.setting.left),
    )
    print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", last):
        row.figures[{"failed": "tests failed"}.get(word, word)] = float(number)
    named = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode:
        row.figures["failed"] = ", ".join(named) or f"pytest ended with code {done.returncode}"
    elif row.setting.dry:
        row.figures["not run"] = "needs CUDA"
