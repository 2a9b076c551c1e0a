"""The tests marked `gpu`, counted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from measuring import Row, Setting

ROOT = Path(__file__).resolve().parents[2]


def run_tests(setting: Setting) -> None:
    """Runs them, and says how many passed; on a CPU all of them are skipped, and that is said."""
    setting.measure("tests marked gpu", "tests/gpu", count_tests)


def count_tests(row: Row) -> None:
    """Runs pytest until its end or the deadline, and counts what it said by then."""
    words = ["-m", "gpu", "-vv", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/gpu"]
    said = row.setting.scratch / "tests.log"
    with said.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *words],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(max(5.0, row.setting.left))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the ranks that it started
            code = process.wait()
    text = said.read_text()
    print(text[-6000:], flush=True)
    found = re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)\b", text, re.MULTILINE)
    for word, times in Counter(word for _, word in found).items():
        row.figures[f"tests {word.lower()}"] = float(times)
    odd = [name.partition("::")[2] for name, word in found if word in ("FAILED", "ERROR")]
    if code:
        row.figures["failed"] = ", ".join(odd) or f"pytest ended with code {code}"
    elif row.setting.dry:
        row.figures["not run"] = "needs CUDA"
